// The lease service of a simulated run: the real LeaseTable on a clock of its own, behind the network, with down times.
// Counterparts: replication/lease_server and service_lease.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "replication/lease_table.h"
#include "replication/role_machine.h"
#include "tests/simulation/world.h"

namespace echofs::sim {

class LeaseService {
 public:
  // Owns nothing.
  explicit LeaseService(World* world);

  // Faults. What was durable (the tenure) is there again after Start; the holder then counts as holding for a full TTL.
  void Stop();
  void Start();

  // Called where the request arrives; `reply` is called there too, once, unless the service is down or goes down. The
  // caller brings both across the network.
  void Call(const LeaseCall& call, const std::string& node_id, const std::string& address,
            const std::function<void(absl::StatusOr<LeaseRecord>)>& reply);
  // Replies when the state is another one than `version`'s, at the latest after `timeout`.
  void Watch(std::uint64_t version, Moment timeout, const std::function<void(LeaseState)>& reply);

  const LeaseRecord& record() const { return table_->tenure().record; }

 private:
  struct Watcher {
    std::uint64_t version;
    Moment deadline;
    std::function<void(LeaseState)> reply;
  };

  absl::Duration Now() const;
  absl::StatusOr<LeaseRecord> Execute(const LeaseCall& call, const std::string& node_id,
                                      const std::string& address);
  // Answers watchers, and arranges to do so when something is over.
  void Changed();

  World* const world_;
  const SimClock clock_;
  std::unique_ptr<LeaseTable> table_;
  bool up_ = true;
  LeaseTenure stored_;
  std::uint64_t expiry_number_ = 0;  // of the newest arrangement
  std::vector<Watcher> watchers_;
};

}  // namespace echofs::sim
