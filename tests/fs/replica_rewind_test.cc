// A database whose last change sets are not the cluster's history is taken back under real SQLite readers: they see
// the one state or the other (design R5, A6).
#include <sqlite3.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

#include "absl/time/clock.h"
#include "replication/digest.h"
#include "tests/catch.h"
#include "tests/fs/replica_fixture.h"

namespace echofs::fs {
namespace {

const char kAccounts[] =
    "CREATE TABLE account(id INTEGER PRIMARY KEY, balance INT, pad);"
    "CREATE INDEX account_balance ON account(balance);"
    "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<400)"
    "INSERT INTO account SELECT i, 1000, hex(randomblob(200)) FROM c";
const char kSumOfTable[] = "SELECT sum(balance), count(*) FROM account NOT INDEXED";
const char kSumOfIndex[] = "SELECT sum(balance), count(*) FROM account INDEXED BY account_balance";
const char kEverything[] = "SELECT group_concat(balance) FROM account";

std::string Transfer(std::mt19937& random) {
  const std::string from = std::to_string(1 + random() % 400);
  const std::string to = std::to_string(1 + random() % 400);
  const std::string amount = std::to_string(1 + random() % 100);
  return "BEGIN; UPDATE account SET balance=balance-" + amount + " WHERE id=" + from +
         "; UPDATE account SET balance=balance+" + amount + " WHERE id=" + to + "; COMMIT";
}

std::vector<std::uint8_t> ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// The other history: it begins as a copy of the primary's image.
class OtherHistory {
 public:
  explicit OtherHistory(ReplicaFixture& f) : f_(f), path_(f.directory / "other.db") {
    std::filesystem::copy_file(f.WriteImage(), path_);
    position_ = f.primary->position();
  }

  void Exec(const std::string& sql) {
    sqlite3* database = nullptr;
    REQUIRE(sqlite3_open(path_.c_str(), &database) == SQLITE_OK);
    char* error = nullptr;
    const int code = sqlite3_exec(database, sql.c_str(), nullptr, nullptr, &error);
    INFO(sql << ": " << (error != nullptr ? error : ""));
    REQUIRE(code == SQLITE_OK);
    sqlite3_close(database);
    position_.txid = position_.txid.Next();
    position_.index = position_.index.Next();
  }

  // Takes the replica there by the pages that differ, as often as it must be tried.
  void Install() {
    const std::vector<std::uint8_t> image = ReadFile(path_);
    position_.page_count = static_cast<PageNumber>(image.size() / position_.page_size);
    position_.digest = DigestOf(image, position_.page_size);
    const PageSet pages = Differing(image);
    const absl::Time deadline = absl::Now() + absl::Minutes(1);
    while (true) {
      const auto outcome = f_.replica->InstallPages(position_, path_, pages);
      INFO(outcome.status().ToString());
      REQUIRE(outcome.ok());
      if (outcome->kind == ApplyOutcome::Kind::kApplied) break;
      REQUIRE(absl::Now() < deadline);
      absl::SleepFor(absl::Milliseconds(1));
    }
    REQUIRE(f_.replica->EndTurn().ok());
  }

  // What the replica reads is this history's state, to the byte.
  void CheckSame() {
    const std::vector<std::uint8_t> image = ReadFile(path_);
    CHECK(Local() == image);
    CHECK(f_.replica->position() == position_);
    SqliteProcess here(f_.path, 2000);
    CHECK(here.Run("PRAGMA integrity_check") == "ok");
    SqliteProcess there(path_);
    CHECK(here.Run(kEverything) == there.Run(kEverything));
  }
  std::string Everything() { return SqliteProcess(path_).Run(kEverything); }

 private:
  std::vector<std::uint8_t> Local() {
    std::vector<std::uint8_t> local;
    const DatabasePosition position = f_.replica->position();
    while (local.size() < std::uint64_t{position.page_count} * position.page_size) {
      const auto run = f_.replica->ReadPages(
          static_cast<PageNumber>(1 + local.size() / position.page_size), 1000);
      REQUIRE(run.ok());
      local.insert(local.end(), run->pages.begin(), run->pages.end());
    }
    return local;
  }
  PageSet Differing(const std::vector<std::uint8_t>& image) {
    const std::vector<std::uint8_t> local = Local();
    const std::size_t size = position_.page_size;
    PageSet pages;
    for (std::size_t at = 0; at < image.size(); at += size) {
      const bool same = at + size <= local.size() &&
                        std::equal(image.begin() + static_cast<std::ptrdiff_t>(at),
                                   image.begin() + static_cast<std::ptrdiff_t>(at + size),
                                   local.begin() + static_cast<std::ptrdiff_t>(at));
      if (!same) pages.Add(static_cast<PageNumber>(1 + at / size));
    }
    return pages;
  }

  ReplicaFixture& f_;
  const std::string path_;
  DatabasePosition position_;
};

}  // namespace

TEST_CASE("readers at full speed see the orphans' state or the history's, never between (R5)") {
  const std::string mode = GENERATE("WAL", "DELETE");
  const std::string page_size = GENERATE("512", "4096");
  const int shape = GENERATE(0, 1, 2, 3);  // how the database grows and shrinks
  ReplicaFixture f("PRAGMA page_size=" + page_size + "; PRAGMA journal_mode=" + mode);
  f.ApplySql(kAccounts);
  std::mt19937 random(5);
  OtherHistory history(f);
  for (int i = 0; i < 20; ++i) f.ApplySql(Transfer(random));
  if (shape == 1) f.ApplySql("INSERT INTO account SELECT id+1000, 0, pad FROM account");
  if (shape == 2) f.ApplySql("UPDATE account SET pad=''; VACUUM");
  if (shape == 3) history.Exec("INSERT INTO account SELECT id+5000, 0, pad FROM account");
  SqliteProcess waiting(f.path, 10000);  // reads only before and after, with a full cache
  waiting.Run(kEverything);
  SqliteProcess plain(f.path, 10000);
  SqliteProcess mapped(f.path, 10000);
  plain.Run("PRAGMA cache_size=1");
  mapped.Run("PRAGMA mmap_size=10000000");
  plain.StartChecking(kSumOfTable, kSumOfIndex);
  mapped.StartChecking(kSumOfTable, kSumOfIndex);
  for (int i = 0; i < 20; ++i) {
    if (i > 0) history.Exec(Transfer(random));
    history.Install();
  }
  CHECK(plain.StopChecking() == "ok");
  CHECK(mapped.StopChecking() == "ok");
  CHECK(plain.checked() > 0);
  CHECK(waiting.Run(kEverything) == history.Everything());
  history.CheckSame();
}

TEST_CASE("an idle connection's cache of an orphan is not taken for the history's state (R5)") {
  ReplicaFixture f("PRAGMA journal_mode=DELETE");
  f.ApplySql(kAccounts);
  std::mt19937 random(6);
  OtherHistory history(f);
  std::vector<std::unique_ptr<SqliteProcess>> readers;
  // One connection for each orphan's state, with all of it in its cache; the change counters that the history
  // gives to other states will be the same.
  for (int i = 0; i < 4; ++i) {
    f.ApplySql(Transfer(random));
    readers.push_back(std::make_unique<SqliteProcess>(f.path, 10000));
    readers.back()->Run(kEverything);
  }
  for (int i = 0; i < 6; ++i) {
    history.Exec(Transfer(random));
    history.Install();
    // The one whose cache has this change counter looks; the others wait.
    if (i < 4) {
      CHECK(readers[static_cast<std::size_t>(i)]->Run(kEverything) == history.Everything());
    }
  }
  for (const auto& reader : readers) CHECK(reader->Run(kEverything) == history.Everything());
  history.CheckSame();
}

TEST_CASE(
    "an idle connection's cache of a transaction that the primary has undone is not taken for the "
    "next one") {
  ReplicaFixture f("PRAGMA journal_mode=DELETE");
  f.ApplySql(kAccounts);
  std::mt19937 random(8);
  const std::string primary = f.directory / "primary.db";
  for (int i = 0; i < 3; ++i) {
    const std::vector<std::uint8_t> before = f.primary->image();
    // Its acknowledgements do not come: SQLite is told of an error, and rolls back. Both are in the log.
    f.ApplySql(Transfer(random));
    SqliteProcess waiting(f.path, 10000);
    waiting.Run(kEverything);
    std::ofstream(primary, std::ios::binary | std::ios::in)
        .write(reinterpret_cast<const char*>(before.data()),
               static_cast<std::streamsize>(before.size()));
    f.Apply(f.primary->Capture());
    f.ApplySql(Transfer(random));
    SqliteProcess fresh(f.path, 10000);
    const std::string now = fresh.Run(kEverything);
    fresh.Quit();
    CHECK(waiting.Run(kEverything) == now);
    CHECK(waiting.Run("PRAGMA integrity_check") == "ok");
    waiting.Quit();
    f.ApplySql(Transfer(random));
    CHECK_FALSE(f.replica->status().uses_wal);
    f.CheckSame();
  }
}

TEST_CASE("pages that lead to another digest change nothing (A6)") {
  const std::string mode = GENERATE("WAL", "DELETE");
  ReplicaFixture f("PRAGMA journal_mode=" + mode);
  f.ApplySql(kAccounts);
  const std::string path = f.WriteImage();
  SqliteProcess reader(f.path, 2000);
  const std::string before = reader.Run(kEverything);
  DatabasePosition position = f.primary->position();
  position.txid = position.txid.Next();
  position.digest ^= 1;
  PageSet pages;
  pages.Add(1, 3);
  const auto outcome = f.replica->InstallPages(position, path, pages);
  CHECK(absl::IsDataLoss(outcome.status()));
  CHECK(reader.Run(kEverything) == before);
  CHECK(f.replica->position() == f.primary->position());
  // A change set still follows.
  std::mt19937 random(7);
  f.ApplySql(Transfer(random));
  f.CheckSame();
  // Growth without the new pages is refused.
  position = f.primary->position();
  position.page_count += 2;
  CHECK(!f.replica->InstallPages(position, path, pages).ok());
  f.CheckSame();
}

}  // namespace echofs::fs
