// The lease server as a process that is killed, and what it keeps on disk (R1, R2).
#include <sqlite3.h>
#include <sys/mount.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/time/clock.h"
#include "replication/boot_time.h"
#include "replication/lease_store.h"
#include "replication/service_lease.h"
#include "tests/catch.h"
#include "tests/replication/lease_backends.h"

namespace echofs {
namespace {

using test::Await;
using test::LeaseServerProcess;

constexpr absl::Duration kLong = absl::Minutes(10);
constexpr absl::Duration kShort = absl::Seconds(2);

// Runs SQL on the file as no echofs would; returns SQLite's result.
int RunSql(const std::string& path, const std::string& sql) {
  sqlite3* database = nullptr;
  REQUIRE(sqlite3_open(path.c_str(), &database) == SQLITE_OK);
  const int result = sqlite3_exec(database, sql.c_str(), nullptr, nullptr, nullptr);
  sqlite3_close(database);
  return result;
}

TEST_CASE("lease server: what it answered survives kill -9, and no term is given twice (R1)") {
  LeaseServerProcess server;
  const auto lease = server.Connect();
  LeaseRecord acknowledged;
  for (int round = 0; round < 10; ++round) {
    std::atomic<bool> stop = false;
    // Changes one after the other until the server is gone, and remembers the last answer.
    std::thread changing([&] {
      while (!stop) {
        const absl::StatusOr<LeaseState> state = lease->Read();
        if (!state.ok()) continue;
        const absl::StatusOr<LeaseRecord> record =
            lease->Acquire("a", "a:1", state->record.revision, {"a"}, kLong);
        if (!record.ok()) continue;
        CHECK(record->term > acknowledged.term);
        acknowledged = *record;
      }
    });
    const Term before = acknowledged.term;
    Await("some terms", [&] {
      const absl::StatusOr<LeaseState> state = lease->Read();
      return state.ok() && state->record.term.value > before.value + 3;
    });
    server.process().Kill();
    stop = true;
    changing.join();
    server.Start();
    Await("an answer", [&] { return lease->Read().ok(); });
    const LeaseState state = *lease->Read();
    CHECK(state.held);
    CHECK(state.record.term >= acknowledged.term);
    if (state.record.term == acknowledged.term) CHECK(state.record == acknowledged);
  }
}

TEST_CASE("lease server: after a restart the holder has a full TTL, and can renew (R2)") {
  LeaseServerProcess server;
  const auto lease = server.Connect();
  REQUIRE(lease->Acquire("a", "a:1", 0, {"a"}, kLong).ok());
  const absl::Duration renewed = BootTime();
  REQUIRE(lease->Renew({1}, "a", 2 * kShort).ok());
  server.Restart();
  absl::Duration free;
  Await("the end of the lease", [&] {
    const bool held = lease->Read()->held;
    free = BootTime();
    return !held;
  });
  CHECK(free >= renewed + 2 * kShort);
  // What is over stays over.
  server.Restart();
  Await("an answer", [&] { return lease->Read().ok(); });
  CHECK(!lease->Read()->held);
  CHECK(absl::IsFailedPrecondition(lease->Renew({1}, "a", kLong).status()));
  REQUIRE(lease->Acquire("a", "a:1", lease->Read()->record.revision, {"a"}, kLong).ok());
  server.Restart();
  Await("a renewal", [&] { return lease->Renew({3}, "a", kLong).ok(); });
}

TEST_CASE("lease server: who waits hears of a restart, and finds the server again") {
  LeaseServerProcess server;
  const auto lease = server.Connect();
  REQUIRE(lease->Acquire("a", "a:1", 0, {"a"}, kLong).ok());
  const LeaseState state = *lease->Read();
  absl::StatusOr<LeaseState> seen;
  std::thread waiting([&] { seen = lease->WaitForChange(state.version, kLong); });
  server.Restart();
  waiting.join();
  CHECK((absl::IsUnavailable(seen.status()) || seen->record == state.record));
  Await("the state", [&] {
    seen = lease->WaitForChange(state.version, kLong);
    return seen.ok();
  });
  CHECK(seen->record == state.record);
  CHECK(seen->held);
}

TEST_CASE("lease service: one of several endpoints is enough, none is Unavailable") {
  LeaseServerProcess server;
  const std::string nobody = "127.0.0.1:" + std::to_string(test::FreePort());
  const auto lease = MakeServiceLease({nobody, server.address(), nobody}, "test");
  CHECK(lease->Acquire("a", "a:1", 0, {"a"}, kLong)->term == Term{1});
  server.process().Kill();
  CHECK(absl::IsUnavailable(lease->Read().status()));
  CHECK(absl::IsUnavailable(lease->WaitForChange(0, kLong).status()));
  CHECK(absl::IsUnavailable(lease->Acquire("a", "a:1", 1, {"a"}, kLong).status()));
  CHECK(absl::IsUnavailable(lease->Renew({1}, "a", kLong).status()));
  CHECK(absl::IsUnavailable(lease->Release({1}, "a")));
  CHECK(absl::IsUnavailable(lease->Announce({"a", "", true, {}, {}}, kLong)));
  CHECK(absl::IsUnavailable(lease->Withdraw("a")));
  server.Start();
  Await("the server", [&] { return lease->Renew({1}, "a", kLong).ok(); });
}

TEST_CASE("lease server: a full disk refuses changes, loses nothing, and service returns") {
  const TempDirectory dir;
  REQUIRE(::mount("tmpfs", dir.path().c_str(), "tmpfs", 0, "size=256k") == 0);
  {
    LeaseServerProcess server(dir.path() + "/data");
    const auto lease = server.Connect();
    const LeaseRecord record = *lease->Acquire("a", "a:1", 0, {"a"}, kLong);
    std::ofstream(dir.path() + "/filler") << std::string(1 << 20, 'x');
    // The WAL may have some room left.
    absl::Status refused;
    LeaseRecord last = record;
    Await("a refusal", [&] {
      const auto changed = test::SetInSync(
          *lease, {1}, "a", {"a", last.in_sync.size() == 1 ? std::string(200, 'b') : "a"});
      if (changed.ok()) last = *changed;
      refused = changed.status();
      return !refused.ok();
    });
    CHECK(absl::IsUnavailable(refused));
    CHECK(lease->Renew({1}, "a", kLong).ok());
    CHECK(lease->Read()->record == last);
    std::filesystem::remove(dir.path() + "/filler");
    Await("a change", [&] { return test::SetInSync(*lease, {1}, "a", {"a", "c"}).ok(); });
    CHECK(lease->Transfer({1}, "a", "b", "b:1", kLong)->term == Term{3});
  }
  REQUIRE(::umount2(dir.path().c_str(), MNT_DETACH) == 0);
}

TEST_CASE("lease server: SIGTERM ends it with 0, and what keeps it from starting is said") {
  const TempDirectory dir;
  LeaseServerProcess server(dir / "data");
  const std::string free = "127.0.0.1:" + std::to_string(test::FreePort());
  // Exit code and output of a lease server that cannot start.
  const auto run = [&](const std::string& listen, const std::string& data) {
    std::filesystem::remove(dir / "log");
    const int code =
        test::Process({ECHOFS_BINARY, "lease-server", "--listen", listen, "--data-dir", data},
                      dir / "log")
            .WaitForEnd();
    std::ifstream file(dir / "log");
    return std::to_string(code) + " " + std::string(std::istreambuf_iterator<char>(file), {});
  };
  const auto says = [](const std::string& output, const std::string& what) {
    INFO(output);
    CHECK(output.substr(0, 2) == "1 ");
    CHECK(output.find(what) != std::string::npos);
  };
  says(run(free, dir / "data"), "is in use by another echofs");
  says(run(server.address(), dir / "other"), "another process uses this port");
  says(run(free, "/proc/version/data"), "/proc/version/data");
  REQUIRE(server.Connect()->Acquire("a", "a:1", 0, {"a"}, kLong).ok());
  CHECK(server.process().Terminate() == 0);
  server.Start();
  const auto lease = server.Connect();
  Await("an answer", [&] { return lease->Read().ok(); });
  CHECK(lease->Read()->held);
}

TEST_CASE("lease store: the schema itself refuses terms that fall, and removal (R1)") {
  const TempDirectory dir;
  const std::string path = dir / "lease.db";
  {
    const auto store = *LeaseStore::Open(path);
    LeaseTenure tenure;
    tenure.record.term = {5};
    tenure.record.revision = 7;
    tenure.record.in_sync = {"a", "b"};
    tenure.held = true;
    tenure.ttl = absl::Milliseconds(1500);
    REQUIRE(store->Save("k", tenure).ok());
    LeaseTenure lower = tenure;
    lower.record.term = {4};
    CHECK(!store->Save("k", lower).ok());
    lower = tenure;
    lower.record.revision = 6;
    CHECK(!store->Save("k", lower).ok());
    CHECK(store->LoadAll()->at("k") == tenure);
    CHECK(absl::IsFailedPrecondition(LeaseStore::Open(path).status()));
  }
  CHECK(RunSql(path, "UPDATE lease SET term = 1") == SQLITE_CONSTRAINT);
  CHECK(RunSql(path, "DELETE FROM lease") == SQLITE_CONSTRAINT);
  CHECK((*LeaseStore::Open(path))->LoadAll()->at("k").record.term == Term{5});
}

TEST_CASE("lease store: a file of version 1 goes on, bound to no cluster") {
  const TempDirectory dir;
  const std::string path = dir / "lease.db";
  LeaseTenure tenure;
  tenure.record.term = {5};
  tenure.record.revision = 7;
  REQUIRE((*LeaseStore::Open(path))->Save("k", tenure).ok());
  REQUIRE(RunSql(path, "ALTER TABLE lease DROP COLUMN cluster_id; PRAGMA user_version = 1") ==
          SQLITE_OK);
  {
    const auto store = *LeaseStore::Open(path);
    CHECK(store->LoadAll()->at("k") == tenure);
    tenure.cluster_id = "one";
    REQUIRE(store->Save("k", tenure).ok());
  }
  CHECK((*LeaseStore::Open(path))->LoadAll()->at("k") == tenure);
}

TEST_CASE("lease store: a newer file and a damaged one are refused with advice") {
  const TempDirectory dir;
  const std::string path = dir / "lease.db";
  REQUIRE(LeaseStore::Open(path).ok());
  REQUIRE(RunSql(path, "PRAGMA user_version = 3") == SQLITE_OK);
  const absl::Status newer = LeaseStore::Open(path).status();
  CHECK(absl::IsFailedPrecondition(newer));
  CHECK(std::string(newer.message()).find("newer echofs") != std::string::npos);
  std::filesystem::remove(path);
  std::ofstream(path) << std::string(8192, 'x');
  const absl::Status damaged = LeaseStore::Open(path).status();
  CHECK(absl::IsDataLoss(damaged));
  CHECK(std::string(damaged.message()).find(path) != std::string::npos);
}

}  // namespace
}  // namespace echofs
