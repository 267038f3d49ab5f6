// What a running node tells the commands and does for them, put together from its parts.
#pragma once

#include <string>
#include <vector>

#include "cmd/admin_source.h"
#include "fs/database_set.h"
#include "replication/change_log.h"
#include "replication/node.h"

namespace echofs::cmd {

// Thread-safe. Owns nothing; the parts outlive it.
class DaemonStatus final : public AdminSource {
 public:
  DaemonStatus(Node* node, ChangeLog* log, fs::DatabaseSet* databases)
      : node_(node), log_(log), databases_(databases) {}

  NodeStatus Status() override;
  std::vector<DatabaseInfo> Databases() override;
  std::vector<std::string> LocalFiles() override;
  absl::Status ChangeSets(const std::string& database, const ChangeSetRange& range,
                          const std::function<bool(const ChangeSetSummary&)>& visit) override;
  absl::StatusOr<PrimaryInfo> Handoff(const std::string& to) override;
  absl::StatusOr<PrimaryInfo> Promote(bool force) override;
  OrphanStore* Orphans() override { return node_->orphans(); }

 private:
  Node* const node_;
  ChangeLog* const log_;
  fs::DatabaseSet* const databases_;
};

}  // namespace echofs::cmd
