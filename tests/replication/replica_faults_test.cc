// What goes wrong on a replica stays with the database, or the node, that it is about.
#include <string>

#include "tests/catch.h"
#include "tests/replication/test_cluster.h"

namespace echofs {
namespace {

bool Says(const std::string& text, const std::string& words) {
  INFO(text);
  return text.find(words) != std::string::npos;
}

TEST_CASE("a blocked database delays itself alone, and status names the pid (A5)") {
  TestNode a("a");
  TestNode b("b");
  REQUIRE(a.StartPrimary().ok());
  REQUIRE(b.StartReplica(a.address()).ok());
  a.Commit("x.db", 2);
  a.Commit("y.db", 2);
  REQUIRE(Converges(a, b));
  b.store().SetBlocked("x.db", 1234);
  const LogIndex before = a.Commit("x.db", 5).Previous();
  const LogIndex last = a.Commit("y.db", 5);
  REQUIRE(Eventually([&] { return b.database("y.db").applied_index == last; }));
  REQUIRE(Eventually([&] { return b.database("x.db").state == DatabaseState::kBlocked; }));
  CHECK(b.database("x.db").blocked_by_pid == 1234);
  CHECK(Says(b.database("x.db").detail, "1234"));
  CHECK(b.database("y.db").state == DatabaseState::kOk);
  CHECK(b.node().status().applied_index < before);
  CHECK(b.log().last_index() == last);
  b.store().SetBlocked("x.db", 0);
  REQUIRE(Converges(a, b));
  CHECK(b.database("x.db").state == DatabaseState::kOk);
  CHECK(b.database("x.db").blocked_by_pid == 0);
  CHECK(b.store().installs("x.db") == 0);
}

TEST_CASE("a database in which an application still writes is joined when it has left (R4)") {
  TestNode a("a");
  TestNode b("b");
  REQUIRE(a.StartPrimary().ok());
  REQUIRE(b.StartReplica(a.address()).ok());
  a.Commit("x.db", 2);
  REQUIRE(Converges(a, b));
  b.Stop();
  b.store().SetBlocked("x.db", 1234);
  REQUIRE(b.StartReplica(a.address()).ok());
  // No entry is needed for either.
  REQUIRE(Eventually([&] { return b.database("x.db").state == DatabaseState::kBlocked; }));
  CHECK(b.database("x.db").blocked_by_pid == 1234);
  b.store().SetBlocked("x.db", 0);
  REQUIRE(Eventually([&] { return b.database("x.db").state == DatabaseState::kOk; }));
  a.Commit("x.db", 2);
  REQUIRE(Converges(a, b));
  CHECK(b.store().installs("x.db") == 0);
}

TEST_CASE("a digest mismatch heals by a copy, and other databases go on (A6)") {
  TestNode a("a");
  TestNode b("b");
  REQUIRE(a.StartPrimary().ok());
  REQUIRE(b.StartReplica(a.address()).ok());
  a.Commit("x.db", 2);
  a.Commit("y.db", 2);
  REQUIRE(Converges(a, b));
  a.store().SetReadHook([](const std::string&, PageNumber) {
    return absl::UnavailableError("the copy has to wait");
  });
  b.store().DamageNextApply("x.db");
  a.Commit("x.db");
  REQUIRE(Eventually([&] { return b.database("x.db").state == DatabaseState::kCopying; }));
  CHECK(Says(b.database("x.db").detail, "digest"));
  a.Commit("x.db", 3);
  const LogIndex last = a.Commit("y.db", 3);
  REQUIRE(Eventually([&] { return b.database("y.db").applied_index == last; }));
  CHECK(b.database("x.db").state == DatabaseState::kCopying);
  a.store().SetReadHook(nullptr);
  REQUIRE(Converges(a, b));
  CHECK(b.store().installs("x.db") == 1);
  CHECK(b.store().installs("y.db") == 0);
  CHECK(b.database("x.db").state == DatabaseState::kOk);
}

TEST_CASE("a digest mismatch that was not healed before a restart is healed after it (A6)") {
  TestNode a("a");
  TestNode b("b");
  REQUIRE(a.StartPrimary().ok());
  REQUIRE(b.StartReplica(a.address()).ok());
  a.Commit("x.db", 2);
  REQUIRE(Converges(a, b));
  b.store().DamageNextApply("x.db");
  a.store().SetReadHook([](const std::string&, PageNumber) {
    return absl::UnavailableError("the copy has to wait");
  });
  a.Commit("x.db");
  REQUIRE(Eventually([&] { return b.database("x.db").state == DatabaseState::kCopying; }));
  b.Kill();
  a.store().SetReadHook(nullptr);
  a.Commit("x.db", 2);
  REQUIRE(b.StartReplica(a.address()).ok());
  REQUIRE(Converges(a, b));
  CHECK(b.store().installs("x.db") == 1);
}

TEST_CASE("databases that cannot be written are stopped, say why, and go on when they can (L4)") {
  TestNode a("a");
  TestNode b("b");
  REQUIRE(a.StartPrimary().ok());
  REQUIRE(b.StartReplica(a.address()).ok());
  a.Commit("x.db", 2);
  REQUIRE(Converges(a, b));
  b.store().SetApplyError(absl::ResourceExhaustedError("no space left on device"));
  a.Commit("x.db", 2);
  REQUIRE(Eventually([&] { return b.database("x.db").state == DatabaseState::kStopped; }));
  CHECK(Says(b.database("x.db").detail, "no space left"));
  b.store().SetApplyError(absl::OkStatus());
  CHECK(Converges(a, b));
  CHECK(b.store().installs("x.db") == 0);
}

TEST_CASE("a node of another cluster is refused, with words that help") {
  TestNode a("a");
  TestNode c("c");
  TestNode b("b");
  REQUIRE(a.StartPrimary().ok());
  REQUIRE(c.StartPrimary().ok());
  a.Commit("x.db");
  c.Commit("x.db");
  REQUIRE(b.StartReplica(a.address()).ok());
  REQUIRE(Converges(a, b));
  const std::string before = b.store().Dump();
  b.Stop();
  REQUIRE(b.StartReplica(c.address()).ok());
  REQUIRE(Eventually([&] { return !b.node().status().last_error.empty(); }));
  const NodeStatus status = b.node().status();
  CHECK(!status.connected);
  CHECK(!status.ready);
  CHECK(Says(status.last_error, a.node().status().cluster_id));
  CHECK(Says(status.last_error, c.node().status().cluster_id));
  CHECK(Says(status.last_error, "move its data directory away"));
  CHECK(Says(status.last_error, c.address()));
  CHECK(b.store().Dump() == before);
  CHECK(c.node().status().replicas.empty());
  b.Stop();
  REQUIRE(b.StartReplica(a.address()).ok());
  CHECK(Converges(a, b));
}

TEST_CASE("a replica whose node.json is gone does not guess its cluster") {
  TestNode a("a");
  TestNode b("b");
  REQUIRE(a.StartPrimary().ok());
  REQUIRE(b.StartReplica(a.address()).ok());
  REQUIRE(Converges(a, b));
  b.Stop();
  REQUIRE(PosixStorage()->Remove(b.directory() + "/node.json").ok());
  const absl::Status status = b.StartReplica(a.address());
  CHECK(absl::IsFailedPrecondition(status));
  CHECK(Says(std::string(status.message()), "node.json"));
}

TEST_CASE("a primary that was put back to an older state is refused by those who know more (R1)") {
  TestNode a("a");
  TestNode b("b");
  TestNode old("a");
  REQUIRE(a.StartPrimary().ok());
  REQUIRE(b.StartReplica(a.address()).ok());
  REQUIRE(Converges(a, b));
  const std::string address = a.address();
  a.Stop();
  REQUIRE(a.StartPrimary().ok());
  a.Commit("x.db");
  REQUIRE(Converges(a, b));
  b.Stop();
  // The same cluster with an empty log: term 1 again.
  NodeState state = *LoadNodeState(*PosixStorage(), a.directory());
  REQUIRE(SaveNodeState(*PosixStorage(), old.directory(), state).ok());
  REQUIRE(old.StartPrimary().ok());
  REQUIRE(b.StartReplica(old.address()).ok());
  REQUIRE(Eventually([&] { return !b.node().status().last_error.empty(); }));
  CHECK(Says(b.node().status().last_error, "has seen term 3"));
  CHECK(b.store().LocalDatabases() == std::vector<std::string>{"x.db"});
}

TEST_CASE("a replica whose log has entries that the primary lost takes the primary's history") {
  TestNode a("a");
  TestNode b("b");
  REQUIRE(a.StartPrimary().ok());
  a.Commit("x.db", 3);
  a.Commit("y.db", 3);
  REQUIRE(b.StartReplica(a.address()).ok());
  REQUIRE(Converges(a, b));
  // The primary loses its last transaction, as a machine crash without sync does.
  PageStore::Pages pages = {{1, PageStore::Page(512, 1)}};
  a.store().Commit(a.log(), a.node().term(), "z.db", 512, 1, pages);
  REQUIRE(Converges(a, b));
  REQUIRE(a.log().TruncateAfter(a.log().last_index().Previous()).ok());
  a.Stop();
  REQUIRE(a.StartPrimary().ok());
  // Its files were at the lost entry, which fs/ would have repaired.
  REQUIRE(Eventually([&] { return b.node().status().log_last_term == Term{3}; }));
  CHECK(Eventually([&] {
    return b.store().LocalDatabases() == std::vector<std::string>{"x.db", "y.db"};
  }));
  CHECK(b.store().installs("x.db") == 0);
  a.Commit("x.db", 2);
  const LogIndex last = a.log().last_index();
  CHECK(Eventually([&] { return b.node().status().applied_index == last; }));
}

TEST_CASE("a port in use is an error that names the address and what to do") {
  TestNode a("a");
  TestNode c("c");
  TempDirectory directory;
  REQUIRE(a.StartPrimary().ok());
  const std::unique_ptr<ChangeLog> log = *ChangeLog::Open(directory / "log", {});
  PageStore store;
  NodeOptions options;
  options.data_directory = directory.path();
  options.node_id = "d";
  options.listen = a.address();
  Node node(options, log.get(), &store, PosixStorage());
  const absl::Status status = node.Start();
  CHECK(absl::IsFailedPrecondition(status));
  CHECK(Says(std::string(status.message()), a.address()));
  CHECK(Says(std::string(status.message()), "another process uses this port"));
  // No term was spent on it.
  CHECK(log->last_index() == LogIndex{0});
  options.listen = "127.0.0.1";
  Node without_port(options, log.get(), &store, PosixStorage());
  CHECK(Says(std::string(without_port.Start().message()), "host:port"));
}

TEST_CASE("maintenance syncs the files before it lets old segments go (L4)") {
  TestNode a("a");
  TestNode b("b");
  b.maintenance_interval = absl::Milliseconds(10);
  REQUIRE(a.StartPrimary().ok());
  REQUIRE(b.StartReplica(a.address()).ok());
  a.Commit("x.db", 50);
  REQUIRE(Eventually([&] { return b.log().first_index() > LogIndex{1}; }));
  CHECK(b.store().syncs() > 0);
  REQUIRE(Converges(a, b));
  // What a blocked database needs stays.
  b.store().SetBlocked("x.db", 9);
  const LogIndex needed = a.log().last_index().Next();
  a.Commit("x.db", 50);
  a.Commit("y.db", 50);
  const LogIndex last = a.log().last_index();
  REQUIRE(Eventually([&] { return b.database("y.db").applied_index == last; }));
  const int syncs = b.store().syncs();
  a.Commit("y.db");
  REQUIRE(Eventually([&] { return b.store().syncs() > syncs || b.log().first_index() <= needed; }));
  CHECK(b.log().first_index() <= needed);
  b.store().SetBlocked("x.db", 0);
  REQUIRE(Converges(a, b));
  CHECK(b.store().installs("x.db") == 0);
}

}  // namespace
}  // namespace echofs
