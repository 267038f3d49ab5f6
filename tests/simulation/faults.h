// What goes wrong in a simulated run, one thing after the other and several at a time, all decided by the seed.
#pragma once

#include "tests/simulation/world.h"

namespace echofs::sim {

enum class FaultKind {
  kCrash,           // a process ends (kill -9); what it wrote stays
  kPowerLoss,       // what was not synced is lost, by chance torn
  kPowerLossInIo,   // the same between two operations of the disk
  kPause,           // nothing is executed, the clock goes on
  kCutNodes,        // one direction between two nodes
  kCutLease,        // one direction between a node and the lease service
  kIsolate,         // a node from everybody, in one direction or both
  kLeaseDown,       // the lease service stops and starts again
  kSlowDisk,
  kFullDisk,
  kSlowNetwork,
  kHandoff,         // by command
  kPromote,         // by command
  kShutdown,        // in order (SIGTERM), and started again
  kCount,
};
const char* FaultName(FaultKind kind);

// Makes faults until `options.faults_end`, then mends everything. The world outlives the run.
void StartFaults(World* world);

}  // namespace echofs::sim
