#include "tests/cmd/fake_admin_source.h"

#include <algorithm>

namespace echofs::cmd::test {

NodeStatus FakeAdminSource::Status() {
  NodeStatus status;
  status.node = "a";
  status.role = role;
  status.ready = ready;
  status.term = {3};
  if (role == "primary") status.primary = "a";
  status.log_index = {12};
  status.log_term = {3};
  status.http = "127.0.0.1:20203";
  status.in_sync = {"a", "b"};
  status.databases = Databases();
  status.replicas = {{.node = "b",
                      .address = "10.0.0.2:20202",
                      .acked_index = {11},
                      .lag_ms = 40,
                      .in_sync = true}};
  status.nodes = {{.node = "a",
                   .address = "10.0.0.1:20202",
                   .candidate = true,
                   .primary = true,
                   .in_sync = true,
                   .log_index = {12},
                   .log_term = {3},
                   .lag_ms = std::nullopt},
                  {.node = "b",
                   .address = "10.0.0.2:20202",
                   .candidate = true,
                   .primary = false,
                   .in_sync = true,
                   .log_index = {11},
                   .log_term = {3},
                   .lag_ms = 40},
                  {.node = "reports",
                   .address = "10.0.0.3:20202",
                   .candidate = false,
                   .primary = false,
                   .in_sync = false,
                   .log_index = {7},
                   .log_term = {2},
                   .lag_ms = std::nullopt}};
  status.cluster_id = "c1";
  status.last_error = "the disk is full";
  status.log_first_index = {2};
  status.log_size_bytes = 65536;
  status.orphans = 5;
  status.rewinds = {2, 30, 122880};
  return status;
}

std::vector<DatabaseInfo> FakeAdminSource::Databases() {
  DatabaseInfo first;
  first.name = "app.db";
  first.txid = {3};
  first.digest = 0xfedcba9876543210;
  first.pages = 10;
  first.page_size = 4096;
  first.journal_mode = "wal";
  first.state = "ok";
  first.applied_index = {12};
  DatabaseInfo second = first;
  second.name = "sub/other.db";
  second.txid = {0x1f};
  second.digest = 1;
  second.journal_mode = "delete";
  second.state = "blocked";
  second.blocked_by_pid = 4711;
  second.blocked_for_ms = 1500;
  second.copy_pages_done = 25;
  second.copy_pages = 100;
  second.detail = "a reader holds a lock";
  return {first, second};
}

std::vector<std::string> FakeAdminSource::LocalFiles() {
  return {"notes.txt", "sub/x-mj012345678"};
}

absl::Status FakeAdminSource::ChangeSets(
    const std::string& database, const ChangeSetRange& range,
    const std::function<bool(const ChangeSetSummary&)>& visit) {
  if (database != "app.db") return absl::NotFoundError("there is no database " + database);
  const std::uint64_t last = range.limit == 0 ? 3 : std::min<std::uint64_t>(3, range.limit);
  for (std::uint64_t txid = std::max<std::uint64_t>(1, range.from.value); txid <= last; ++txid) {
    const ChangeSetSummary summary = {.index = {9 + txid},
                                      .term = {3},
                                      .txid = {txid},
                                      .kind = txid == 3 ? "drop" : "change",
                                      .timestamp_ms = 1700000000123,
                                      .pages = 2,
                                      .bytes = 8400,
                                      .page_count = 10,
                                      .digest = 0xfedcba9876543210};
    if (!visit(summary)) break;
  }
  return absl::OkStatus();
}

absl::StatusOr<PrimaryInfo> FakeAdminSource::Handoff(const std::string& to) {
  if (to == "c") return absl::FailedPreconditionError("c is not connected to this primary");
  return PrimaryInfo{to.empty() ? "b" : to, {4}};
}

absl::StatusOr<PrimaryInfo> FakeAdminSource::Promote(bool force) {
  if (!lease_service) return absl::UnavailableError("the lease service cannot be asked");
  return PrimaryInfo{"a", {force ? 5U : 4U}};
}

}  // namespace echofs::cmd::test
