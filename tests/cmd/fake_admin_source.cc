#include "tests/cmd/fake_admin_source.h"

namespace echofs::cmd::test {

NodeStatus FakeAdminSource::Status() {
  NodeStatus status;
  status.node = "a";
  status.role = "primary";
  status.ready = true;
  status.term = {3};
  status.primary = "a";
  status.log_index = {12};
  status.log_term = {3};
  status.in_sync = {"a", "b"};
  status.databases = Databases();
  status.replicas = {{.node = "b",
                      .address = "10.0.0.2:20202",
                      .acked_index = {11},
                      .lag_ms = 40,
                      .in_sync = true}};
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
    const std::string& database, const std::function<bool(const ChangeSetSummary&)>& visit) {
  if (database != "app.db") return absl::NotFoundError("there is no database " + database);
  for (std::uint64_t txid = 1; txid <= 3; ++txid) {
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

}  // namespace echofs::cmd::test
