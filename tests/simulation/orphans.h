// STAND-IN for replication/orphan_store.
#pragma once

#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "replication/change_log.h"
#include "replication/lease.h"

namespace echofs::sim {

class Orphans {
 public:
  Orphans(Storage* storage, std::string directory)
      : storage_(storage), directory_(std::move(directory)) {}
  absl::Status Keep(const ChangeLog& log, const CommonPoint& common, const std::string& primary,
                    Term primary_term);
  absl::StatusOr<std::set<LogPosition>> Kept();

 private:
  Storage* const storage_;
  const std::string directory_;
};

}  // namespace echofs::sim
