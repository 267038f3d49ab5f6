#include "cmd/daemon_status.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <utility>

#include "cmd/change_set_summary.h"
#include "cmd/role_change.h"
#include "replication/status_macros.h"

namespace echofs::cmd {
namespace {

DatabaseInfo InfoOf(const fs::DatabaseState& state) {
  DatabaseInfo info;
  info.name = state.position.name;
  info.txid = state.position.txid;
  info.digest = state.position.digest;
  info.pages = state.position.page_count;
  info.page_size = state.position.page_size;
  info.journal_mode = state.wal_mode ? "wal" : "delete";
  info.state = "ok";
  info.applied_index = state.position.index;
  return info;
}

void Overlay(const DatabaseApplyStatus& status, DatabaseInfo* info) {
  info->state = DatabaseStateName(status.state);
  info->detail = status.detail;
  info->blocked_by_pid = status.blocked_by_pid;
  info->blocked_for_ms = static_cast<std::uint64_t>(absl::ToInt64Milliseconds(status.blocked_for));
  info->copy_pages_done = status.copy_pages_done;
  info->copy_pages = status.copy_pages;
  info->applied_index = status.applied_index;
}

NodeInfo InfoOf(const ClusterNode& node) {
  return {.node = node.node_id,
          .address = node.address,
          .candidate = node.candidate,
          .primary = node.primary,
          .in_sync = node.in_sync,
          .log_index = node.position.index,
          .log_term = node.position.term,
          .lag_ms = node.lag_ms};
}

}  // namespace

NodeObservation DaemonStatus::Observe() {
  const echofs::NodeStatus node = node_->status();
  NodeObservation observation;
  observation.connected = node.connected;
  observation.applied_index = node.applied_index;
  observation.lag_ms = node.lag_ms;
  observation.lease_valid_for = node.lease_valid_for;
  observation.lease_age = node.lease_age;
  observation.lease_reachable = node.lease_reachable;
  NodeStatus& status = observation.status;
  status.node = node.node_id;
  status.role = NodeRoleName(node.role);
  status.ready = node.ready;
  status.term = node.term;
  status.primary = node.primary_id;
  status.log_index = node.log_last_index;
  status.log_term = node.log_last_term;
  status.in_sync = node.in_sync;
  status.databases = Describe(node.databases);
  for (const FollowerStatus& follower : node.replicas) {
    if (!follower.connected) continue;
    const bool in_sync =
        std::find(node.in_sync.begin(), node.in_sync.end(), follower.node) != node.in_sync.end();
    status.replicas.push_back(
        {follower.node, follower.address, follower.acked_index, follower.lag_ms, in_sync});
  }
  for (const ClusterNode& other : node.nodes) status.nodes.push_back(InfoOf(other));
  status.cluster_id = node.cluster_id;
  status.last_error = node.last_error;
  status.log_first_index = node.log_first_index;
  status.log_size_bytes = node.log_size_bytes;
  status.orphans = node.orphans;
  status.rewinds = node.rewinds;
  status.http = http_;
  return observation;
}

RoleObservation DaemonStatus::ObserveRole() {
  const echofs::NodeStatus node = node_->status();
  return {NodeRoleName(node.role), node.term, node.primary_id};
}

std::vector<DatabaseInfo> DaemonStatus::Databases() { return Describe(node_->status().databases); }

std::vector<DatabaseInfo> DaemonStatus::Describe(const std::vector<DatabaseApplyStatus>& applied) {
  std::map<std::string, DatabaseInfo> infos;
  for (const fs::DatabaseState& state : databases_->States()) {
    infos[state.position.name] = InfoOf(state);
  }
  for (const DatabaseApplyStatus& database : applied) {
    DatabaseInfo& info = infos[database.name];
    info.name = database.name;
    Overlay(database, &info);
  }
  std::vector<DatabaseInfo> list;
  for (auto& [name, info] : infos) list.push_back(std::move(info));
  return list;
}

std::vector<std::string> DaemonStatus::LocalFiles() {
  absl::StatusOr<std::vector<std::string>> files = databases_->LocalFiles();
  if (files.ok()) return *std::move(files);
  spdlog::warn("{}", std::string(files.status().message()));
  return {};
}

absl::Status DaemonStatus::ChangeSets(const std::string& database, const ChangeSetRange& range,
                                      const std::function<bool(const ChangeSetSummary&)>& visit) {
  ECHOFS_ASSIGN_OR_RETURN(const DatabasePosition position, log_->Position(database));
  Txid from = range.from;
  std::uint64_t left = range.limit == 0 ? std::numeric_limits<std::uint64_t>::max() : range.limit;
  if (from == Txid{} && position.txid.value > left) from = {position.txid.value - left + 1};
  std::unique_ptr<LogReader> reader = log_->Read(log_->first_index());
  LogIndex last;  // looked at
  while (left > 0) {
    const absl::StatusOr<std::optional<LogEntry>> entry = reader->Next();
    if (absl::IsOutOfRange(entry.status())) {
      // Released while this list was made or taken; what follows is there.
      reader = log_->Read(log_->first_index());
      continue;
    }
    ECHOFS_RETURN_IF_ERROR(entry.status());
    if (!entry->has_value()) break;
    if ((*entry)->index <= last) continue;
    last = (*entry)->index;
    if ((*entry)->database != database || (*entry)->txid < from) continue;
    const absl::StatusOr<ChangeSetSummary> summary = Summarize(**entry, *reader);
    if (absl::IsOutOfRange(summary.status())) continue;
    ECHOFS_RETURN_IF_ERROR(summary.status());
    --left;
    if (!visit(*summary)) break;
  }
  return absl::OkStatus();
}

absl::StatusOr<PrimaryInfo> DaemonStatus::Handoff(const std::string& to) {
  return HandOff(*node_, to);
}

absl::StatusOr<PrimaryInfo> DaemonStatus::Promote(bool force) { return PromoteNode(*node_, force); }

}  // namespace echofs::cmd
