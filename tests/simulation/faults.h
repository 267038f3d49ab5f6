// What goes wrong in a simulated run, one thing after the other and several at a time, all decided by the seed.
#pragma once

#include <functional>

#include "tests/simulation/world.h"

namespace echofs::sim {

enum class FaultKind {
  kCrash,          // a process ends (kill -9); what it wrote stays
  kPowerLoss,      // what was not synced is lost, by chance torn
  kPowerLossInIo,  // the same between two operations of the disk
  kPause,          // nothing is executed, the clock goes on
  kCutNodes,       // one direction between two nodes
  kCutLease,       // one direction between a node and the lease service
  kIsolate,        // a node from everybody, in one direction or both
  kLeaseDown,      // the lease service stops and starts again
  kSlowDisk,
  kFullDisk,
  kSlowNetwork,
  kHandoff,   // by command
  kPromote,   // by command
  kShutdown,  // in order (SIGTERM), and started again
  kCount,
};
const char* FaultName(FaultKind kind);

// Outlives the run.
class Faults {
 public:
  explicit Faults(World* world) : world_(world) {}

  // Makes faults until `options.faults_end`, then mends everything.
  void Start();

 private:
  Random& random() { return world_->random; }
  Moment ttl() const { return absl::ToInt64Nanoseconds(world_->options.ttl); }

  void Next();
  FaultKind Choose();
  void Make(FaultKind kind);
  void MendAll();
  // The primary more often than its share: it has most to lose.
  SimNode& PickNode();
  // Another one than `node`.
  int PickOther(int node);
  // Mends it after a while, if everything has not been mended by then.
  void Mend(Moment longest, std::function<void()> mend);
  void Cut(Endpoint from, Endpoint to);
  void Kill(SimNode* node, bool power_loss);
  void Isolate(SimNode* node);
  void Command(FaultKind kind, SimNode* node);

  World* const world_;
};

}  // namespace echofs::sim
