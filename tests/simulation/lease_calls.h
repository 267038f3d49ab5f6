// A simulated node's line to the lease service: a few calls at a time, each of which ends after a timeout, and one watch.
// Counterparts: the threads of replication/role_driver, and replication/service_lease.
#pragma once

#include <cstdint>
#include <deque>
#include <map>

#include "replication/role_machine.h"
#include "tests/simulation/scheduler.h"

namespace echofs::sim {

class Process;

class LeaseCalls {
 public:
  explicit LeaseCalls(Process* process) : process_(process) {}

  // Watches the lease for ever.
  void Start() { Watch(0, 0); }
  // The reply goes to the machine: what the service said, or Unavailable after the timeout.
  void Make(const LeaseCall& call);

 private:
  void SendNext();
  void Send(const LeaseCall& call);
  void Finish(std::uint64_t id, const absl::StatusOr<LeaseRecord>& reply);
  void Watch(std::uint64_t version, Moment timeout);
  void OnState(std::uint64_t number, const LeaseState& state);

  Process* const process_;
  std::deque<LeaseCall> queue_;
  std::map<std::uint64_t, LeaseCall> running_;  // by id
  std::uint64_t watch_number_ = 0;              // of the watch that goes on
};

}  // namespace echofs::sim
