// What a running node tells the commands and the HTTP endpoints, and does for the commands, put together from its parts.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "cmd/admin_source.h"
#include "cmd/node_observer.h"
#include "fs/database_set.h"
#include "replication/change_log.h"
#include "replication/node.h"

namespace echofs::cmd {

// Thread-safe. Owns nothing; the parts outlive it.
class DaemonStatus final : public AdminSource, public NodeObserver {
 public:
  // `http`: where the HTTP server listens, empty without one.
  DaemonStatus(Node* node, ChangeLog* log, fs::DatabaseSet* databases, std::string http)
      : node_(node), log_(log), databases_(databases), http_(std::move(http)) {}

  NodeObservation Observe() override;
  RoleObservation ObserveRole() override;
  NodeStatus Status() override { return Observe().status; }
  std::vector<DatabaseInfo> Databases() override;
  std::vector<std::string> LocalFiles() override;
  absl::Status ChangeSets(const std::string& database, const ChangeSetRange& range,
                          const std::function<bool(const ChangeSetSummary&)>& visit) override;
  absl::StatusOr<PrimaryInfo> Handoff(const std::string& to) override;
  absl::StatusOr<PrimaryInfo> Promote(bool force) override;
  OrphanStore* Orphans() override { return node_->orphans(); }

 private:
  std::vector<DatabaseInfo> Describe(const std::vector<DatabaseApplyStatus>& applied);

  Node* const node_;
  ChangeLog* const log_;
  fs::DatabaseSet* const databases_;
  const std::string http_;
};

}  // namespace echofs::cmd
