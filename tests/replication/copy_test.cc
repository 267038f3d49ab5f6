// First copies: databases that a replica cannot get from the log.
#include <filesystem>
#include <string>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "echofs/v1/replication.pb.h"
#include "replication/database_copy.h"
#include "replication/digest.h"
#include "replication/wire.h"
#include "tests/catch.h"
#include "tests/replication/temp_directory.h"
#include "tests/replication/test_cluster.h"

namespace echofs {
namespace {

// A database of so many pages, in one transaction.
void CommitLarge(TestNode& node, const std::string& database, std::uint32_t page_size,
                 PageNumber count, std::uint8_t seed) {
  PageStore::Pages pages;
  for (PageNumber number = 1; number <= count; ++number) {
    PageStore::Page page(page_size, seed);
    page[0] = static_cast<std::uint8_t>(number);
    page[1] = static_cast<std::uint8_t>(number >> 8);
    pages[number] = std::move(page);
  }
  node.store().Commit(node.log(), node.node().term(), database, page_size, count, pages);
}

// A primary whose log does not reach back to its start.
void StartOldPrimary(TestNode& a) {
  REQUIRE(a.StartPrimary().ok());
  a.Commit("x.db", 5);
  a.Commit("y.db", 5);
  a.ForgetLog();
  REQUIRE(a.log().first_index() > LogIndex{11});
}

// A primary that sends two pages and says what digest they have.
class TwoPages final : public FetchCall {
 public:
  explicit TwoPages(std::uint64_t digest) {
    position_.name = "x.db";
    position_.txid = {1};
    position_.page_size = 512;
    position_.page_count = 2;
    position_.digest = digest;
  }
  bool Read(v1::FetchDatabaseResponse* response) override {
    response->Clear();
    switch (step_++) {
      case 0:
        ToMessage(position_, response->mutable_begin()->mutable_position());
        return true;
      case 1:
        response->mutable_pages()->set_first(1);
        response->mutable_pages()->set_data(std::string(512, 'a') + std::string(512, 'b'));
        return true;
      case 2:
        ToMessage(position_, response->mutable_end()->mutable_position());
        return true;
      default:
        return false;
    }
  }
  void Cancel() override {}
  absl::Status Finish() override { return absl::OkStatus(); }

 private:
  DatabasePosition position_;
  int step_ = 0;
};

TEST_CASE("a copy whose digest is not the history's is not taken (A6)") {
  const std::uint64_t right =
      PageHash(1, AsBytes(std::string(512, 'a'))) + PageHash(2, AsBytes(std::string(512, 'b')));
  const std::uint64_t wrong = GENERATE(0, 1);
  TempDirectory directory;
  const auto log = ChangeLog::Open(directory / "log", {});
  REQUIRE(log.ok());
  const std::string path = directory / "copy";
  TwoPages call(right + wrong);
  CopyTask task("x.db", std::nullopt);
  const auto copy = CopyDatabase(PosixStorage(), **log, call, path, task);
  CHECK(copy.status().code() == (wrong == 0 ? absl::StatusCode::kOk : absl::StatusCode::kDataLoss));
  CHECK(std::filesystem::exists(path) == copy.ok());
}

TEST_CASE("a late joiner gets first copies while the primary commits") {
  TestNode a("a");
  TestNode b("b");
  StartOldPrimary(a);
  CommitLarge(a, "large.db", 512, 3000, 1);
  a.ForgetLog();
  {
    Writer writer(&a, {"x.db", "y.db", "z.db"});
    REQUIRE(b.StartReplica(a.address()).ok());
    REQUIRE(Eventually([&] { return b.store().installs("large.db") == 1; }));
    writer.WaitFor(50);
  }
  REQUIRE(Converges(a, b));
  CHECK(b.log().first_index() > LogIndex{11});
  CHECK(b.store().installs("x.db") == 1);
}

TEST_CASE(
    "commits between the steps of a copy are in it: growth, shrinkage, pages before and after") {
  TestNode a("a");
  TestNode b("b");
  StartOldPrimary(a);
  CommitLarge(a, "x.db", 512, 2000, 1);
  a.ForgetLog();
  std::atomic<int> step = 0;
  std::atomic<int> begins = 0;
  a.store().SetReadHook([&](const std::string& database, PageNumber first) -> absl::Status {
    if (database != "x.db") return absl::OkStatus();
    if (first == 1) ++begins;
    const auto page = [](std::uint8_t byte) { return PageStore::Page(512, byte); };
    const auto commit = [&](PageNumber count, const PageStore::Pages& pages) {
      a.store().Commit(a.log(), a.node().term(), "x.db", 512, count, pages);
    };
    switch (step++) {
      case 0:
        return absl::UnavailableError("a transaction is in the way");
      case 2:
        commit(2000, {{1, page(1)}, {1999, page(2)}});
        break;
      case 3:
        commit(900, {{2, page(3)}});
        break;
      case 4:
        // Pages 901 to 1498 come back as zeros.
        commit(1500, {{700, page(4)}, {1499, page(5)}, {1500, page(6)}});
        break;
      case 5:
        commit(1400, {{3, page(7)}, {1400, page(8)}});
        break;
    }
    return absl::OkStatus();
  });
  REQUIRE(b.StartReplica(a.address()).ok());
  REQUIRE(Converges(a, b));
  CHECK(step > 6);
  CHECK(begins ==
        2);  // the one that was told to try again, and the one copy that succeeded at once
  CHECK(b.store().installs("x.db") == 1);
}

TEST_CASE("a copy starts again when the page size changes in the middle") {
  TestNode a("a");
  TestNode b("b");
  StartOldPrimary(a);
  CommitLarge(a, "x.db", 512, 2000, 1);
  a.ForgetLog();
  std::atomic<int> step = 0;
  a.store().SetReadHook([&](const std::string& database, PageNumber) {
    if (database == "x.db" && step++ == 2) CommitLarge(a, "x.db", 1024, 1000, 2);
    return absl::OkStatus();
  });
  REQUIRE(b.StartReplica(a.address()).ok());
  REQUIRE(Converges(a, b));
  CHECK(b.store().installs("x.db") == 1);
  CHECK(b.store().AppliedPosition("x.db")->page_size == 1024);
}

TEST_CASE("a database that is dropped while it is copied is not there afterwards") {
  TestNode a("a");
  TestNode b("b");
  StartOldPrimary(a);
  CommitLarge(a, "x.db", 512, 2000, 1);
  a.ForgetLog();
  std::atomic<int> step = 0;
  a.store().SetReadHook([&](const std::string& database, PageNumber) {
    if (database == "x.db" && step++ == 2) a.Drop("x.db");
    return absl::OkStatus();
  });
  REQUIRE(b.StartReplica(a.address()).ok());
  REQUIRE(Eventually([&] { return step > 2; }));
  REQUIRE(Converges(a, b));
  CHECK(b.store().installs("x.db") == 0);
  a.Commit("x.db");
  CHECK(Converges(a, b));
}

TEST_CASE("a database that is dropped and made again while it is copied arrives as the new one") {
  TestNode a("a");
  TestNode b("b");
  StartOldPrimary(a);
  CommitLarge(a, "x.db", 512, 2000, 1);
  a.ForgetLog();
  std::atomic<int> step = 0;
  std::atomic<bool> made_again = false;
  a.store().SetReadHook([&](const std::string& database, PageNumber) {
    if (database == "x.db" && step++ == 2) {
      a.Drop("x.db");
      CommitLarge(a, "x.db", 512, 1000, 2);
      made_again = true;
    }
    return absl::OkStatus();
  });
  REQUIRE(b.StartReplica(a.address()).ok());
  // Before, the nodes agree for a moment that the database is gone.
  REQUIRE(Eventually([&] { return made_again.load(); }));
  REQUIRE(Converges(a, b));
  CHECK(b.store().AppliedPosition("x.db")->page_count == 1000);
}

TEST_CASE("a replica that dies in the middle of a copy starts it again") {
  TestNode a("a");
  TestNode b("b");
  StartOldPrimary(a);
  CommitLarge(a, "large.db", 512, 3000, 1);
  a.ForgetLog();
  std::atomic<bool> hold = true;
  std::atomic<bool> held = false;
  a.store().SetReadHook([&](const std::string& database, PageNumber first) -> absl::Status {
    if (database == "large.db" && first > 1000 && hold) {
      held = true;
      return absl::UnavailableError("held");
    }
    return absl::OkStatus();
  });
  REQUIRE(b.StartReplica(a.address()).ok());
  REQUIRE(Eventually([&] { return held && b.database("large.db").copy_pages_done > 0; }));
  const DatabaseApplyStatus status = b.database("large.db");
  CHECK(status.state == DatabaseState::kCopying);
  CHECK(status.copy_pages == 3000);
  CHECK(!b.node().status().ready);
  b.Kill();
  CHECK(b.store().installs("large.db") == 0);
  // What a crash leaves behind is cleared away.
  const std::string rubbish = b.directory() + "/tmp/copy-0-0";
  CHECK(PosixStorage()->Open(rubbish, OpenOptions{.create = true}).ok());
  CommitLarge(a, "large.db", 512, 2500, 2);
  held = false;
  REQUIRE(b.StartReplica(a.address()).ok());
  CHECK(!std::filesystem::exists(rubbish));
  REQUIRE(Eventually([&] { return held.load(); }));
  hold = false;
  REQUIRE(Converges(a, b));
  CHECK(b.store().installs("large.db") == 1);
  CHECK(std::filesystem::is_empty(b.directory() + "/tmp"));
}

TEST_CASE("a primary that restarts in the middle of a copy continues it") {
  TestNode a("a");
  TestNode b("b");
  StartOldPrimary(a);
  CommitLarge(a, "large.db", 512, 3000, 1);
  a.ForgetLog();
  std::atomic<bool> held = false;
  a.store().SetReadHook([&](const std::string& database, PageNumber first) -> absl::Status {
    if (database != "large.db" || first < 1000) return absl::OkStatus();
    held = true;
    return absl::UnavailableError("held");
  });
  REQUIRE(b.StartReplica(a.address()).ok());
  REQUIRE(Eventually([&] { return held.load(); }));
  a.Stop();
  a.store().SetReadHook(nullptr);
  REQUIRE(a.StartPrimary().ok());
  CHECK(Converges(a, b));
}

TEST_CASE("a replica that was away for too long copies what differs, and only that (L4)") {
  TestNode a("a");
  TestNode b("b");
  REQUIRE(a.StartPrimary().ok());
  for (const char* name : {"same.db", "changed.db", "dropped.db"}) a.Commit(name, 3);
  REQUIRE(b.StartReplica(a.address()).ok());
  REQUIRE(Converges(a, b));
  const LogIndex last = a.log().last_index();
  b.Stop();
  a.Commit("changed.db");
  a.Drop("dropped.db");
  a.Commit("new.db");
  a.ForgetLog();
  REQUIRE(a.log().first_index() > last.Next());
  REQUIRE(b.StartReplica(a.address()).ok());
  REQUIRE(Converges(a, b));
  CHECK(b.log().first_index() > last.Next());
  CHECK(b.store().installs("same.db") == 0);
  CHECK(b.store().installs("changed.db") == 1);
  CHECK(b.store().installs("new.db") == 1);
  CHECK(b.database("dropped.db").name.empty());
  // Also in the log's own words the node is whole: a restart copies nothing.
  b.Stop();
  REQUIRE(b.StartReplica(a.address()).ok());
  REQUIRE(Converges(a, b));
  CHECK(b.store().installs("changed.db") == 1);
}

TEST_CASE("a copy waits for a blocked database without stopping others (A5)") {
  TestNode a("a");
  TestNode b("b");
  StartOldPrimary(a);
  b.store().SetBlocked("x.db", 4711);
  REQUIRE(b.StartReplica(a.address()).ok());
  REQUIRE(Eventually([&] { return b.database("x.db").blocked_by_pid == 4711; }));
  a.Commit("x.db", 5);
  const LogIndex last = a.Commit("y.db", 5);
  REQUIRE(Eventually([&] { return b.database("y.db").applied_index == last; }));
  CHECK(b.database("x.db").state == DatabaseState::kBlocked);
  b.store().SetBlocked("x.db", 0);
  REQUIRE(Converges(a, b));
  CHECK(b.store().installs("x.db") == 1);
}

TEST_CASE("more databases than fit into one catalog message") {
  TestNode a("a");
  TestNode b("b");
  REQUIRE(a.StartPrimary().ok());
  for (int i = 0; i < 1200; ++i) {
    a.store().Commit(a.log(), a.node().term(), "d" + std::to_string(i), 512, 1,
                     {{1, PageStore::Page(512, static_cast<std::uint8_t>(i))}});
  }
  a.ForgetLog();
  REQUIRE(b.StartReplica(a.address()).ok());
  CHECK(Converges(a, b));
}

}  // namespace
}  // namespace echofs
