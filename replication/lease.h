// Who is the primary (design R1, R6). Backends stand behind this interface: static (static_lease),
// and later the lease service and etcd.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "replication/ids.h"

namespace echofs {

// The lease as the backend holds it.
struct LeaseRecord {
  Term term;                    // zero when the backend does not know it (static, on a replica)
  std::string primary_id;       // node id; empty when the backend does not know it
  std::string primary_address;  // host:port of its gRPC server; may be empty for a single node
  std::vector<std::string> in_sync;  // node ids that have every acknowledged commit
  absl::Time expiry = absl::InfiniteFuture();
};

// A node that asks for the lease.
struct LeaseRequest {
  std::string node_id;
  std::string address;
  Term last_term;  // of its log
  LogIndex last_index;
};

// Thread-safe. Calls may wait for the backend, so not in the way of a commit.
class Lease {
 public:
  virtual ~Lease() = default;

  // The lease as it stands; nothing when nobody holds it. Unavailable when the backend cannot be
  // asked.
  virtual absl::StatusOr<std::optional<LeaseRecord>> Current() = 0;
  // Makes the caller primary with a term that is higher than all before it. FailedPrecondition when
  // another node is to be primary.
  virtual absl::StatusOr<LeaseRecord> Acquire(const LeaseRequest& request) = 0;
};

}  // namespace echofs
