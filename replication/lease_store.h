// Where the lease server keeps what must survive it: one SQLite database, synchronous=FULL. What Save returned OK for
// is on disk. The schema refuses terms and revisions that fall and the removal of a lease, whatever the code above it
// does (R1).
//
//     PRAGMA user_version   kLeaseStoreVersion
//     lease(key, term, revision, primary_id, primary_address, in_sync, held, ttl_ms, cluster_id)
//     in_sync               a JSON array of node ids
//     cluster_id            empty until the lease is bound to a cluster
#pragma once

#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "replication/lease_table.h"

namespace echofs {

inline constexpr int kLeaseStoreVersion = 2;

// One thread at a time.
class LeaseStore {
 public:
  // Opens or creates the database at `path`, in use by nobody else. FailedPrecondition: somebody uses it, or a newer
  // echofs wrote it. DataLoss: it is damaged. Messages name the file and say what to do.
  static absl::StatusOr<std::unique_ptr<LeaseStore>> Open(const std::string& path);
  virtual ~LeaseStore() = default;

  // The leases by key.
  virtual absl::StatusOr<std::map<std::string, LeaseTenure>> LoadAll() = 0;
  // Unavailable when it cannot be written: whether it was is not known then, LoadAll tells.
  virtual absl::Status Save(const std::string& key, const LeaseTenure& tenure) = 0;
};

}  // namespace echofs
