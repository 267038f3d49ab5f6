// Change sets into a database in a rollback mode under real SQLite readers (design A1, A4, A6).
#include <filesystem>
#include <optional>
#include <random>
#include <vector>

#include "fs/lock_turns.h"
#include "tests/catch.h"
#include "tests/fs/replica_fixture.h"

namespace echofs::fs {
namespace {

std::string Setup(int page_size) {
  return "PRAGMA page_size=" + std::to_string(page_size) + "; PRAGMA journal_mode=DELETE";
}

const char kAccounts[] =
    "CREATE TABLE account(id INTEGER PRIMARY KEY, balance INT, pad);"
    "CREATE INDEX account_balance ON account(balance);"
    "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<200)"
    "INSERT INTO account SELECT i, 1000, hex(randomblob(60)) FROM c";
const char kSumOfTable[] = "SELECT sum(balance), count(*) FROM account NOT INDEXED";
const char kSumOfIndex[] = "SELECT sum(balance), count(*) FROM account INDEXED BY account_balance";

std::string Transfer(std::mt19937& random) {
  const std::string amount = std::to_string(random() % 100);
  return "BEGIN; UPDATE account SET balance=balance-" + amount +
         " WHERE id=" + std::to_string(1 + random() % 200) +
         "; UPDATE account SET balance=balance+" + amount +
         " WHERE id=" + std::to_string(1 + random() % 200) + "; COMMIT";
}

// A database whose table t a reader has open in a transaction, in which it sees no rows; somebody else is there too.
struct LongReader {
  LongReader() : f(Setup(4096)) {
    f.ApplySql("CREATE TABLE t(x)");
    reader.emplace(f.path);
    late.emplace(f.path);
    reader->Run("BEGIN");
    CHECK(reader->Run("SELECT count(*) FROM t") == "0");
  }
  ReplicaFixture f;
  std::optional<SqliteProcess> reader;
  std::optional<SqliteProcess> late;
};

}  // namespace

TEST_CASE("a rollback-mode database is applied change set by change set (A4)") {
  const int page_size = GENERATE(512, 4096, 65536);
  ReplicaFixture f(Setup(page_size));
  f.ApplySql("CREATE TABLE t(x, y)");
  CHECK_FALSE(f.replica->status().uses_wal);
  SqliteProcess reader(f.path);
  CHECK(reader.Run("SELECT count(*) FROM t") == "0");
  for (int i = 1; i <= 20; ++i) {
    f.ApplySql("INSERT INTO t VALUES(" + std::to_string(i) + ", randomblob(2000))");
    REQUIRE(reader.Run("SELECT count(*), max(x) FROM t") ==
            std::to_string(i) + "|" + std::to_string(i));
  }
  CHECK_FALSE(f.replica->status().uses_wal);
  CHECK(reader.Run("PRAGMA journal_mode") == "delete");
  f.ApplySql("DELETE FROM t; VACUUM");
  CHECK(std::filesystem::file_size(f.path) == f.primary->image().size());
  f.CheckSame();
}

TEST_CASE("a reader blocks the apply, is named, and no new reader starves it (A4, A5)") {
  LongReader long_reader;
  auto& [f, reader, late] = long_reader;
  const Change change = f.primary->Run("INSERT INTO t VALUES(1)");
  auto outcome = f.Try(change);
  REQUIRE(outcome.ok());
  CHECK(outcome->kind == ApplyOutcome::Kind::kBlocked);
  CHECK(outcome->blocked_by_pid == reader->pid());
  CHECK(f.replica->status().blocked_by_pid == reader->pid());
  CHECK(reader->Run("SELECT count(*) FROM t") == "0");
  CHECK(late->Run("SELECT count(*) FROM t").rfind("error 5", 0) == 0);  // PENDING is ours
  reader->Run("COMMIT");
  f.Apply(change);
  CHECK(f.replica->status().blocked_by_pid == 0);
  CHECK(late->Run("SELECT count(*) FROM t") == "1");
  CHECK(reader->Run("SELECT count(*) FROM t") == "1");
  CHECK(reader->Run("INSERT INTO t VALUES(9)").rfind("error 5", 0) == 0);  // A1
  f.CheckSame();
}

TEST_CASE("a long reader keeps new readers out only for a while (A4)") {
  LongReader long_reader;
  auto& [f, reader, late] = long_reader;
  const Change change = f.primary->Run("INSERT INTO t VALUES(1)");
  // PENDING is given back again and again, whoever stays inside.
  for (int turn = 0; turn < 2; ++turn) {
    auto outcome = f.Try(change);
    while (outcome.ok() && outcome->kind == ApplyOutcome::Kind::kBlocked) outcome = f.Try(change);
    REQUIRE(outcome.ok());
    REQUIRE(outcome->kind == ApplyOutcome::Kind::kLater);
    CHECK(outcome->retry_after > absl::ZeroDuration());
    CHECK(outcome->retry_after <= kReadersTurnMax);
    CHECK(late->Run("SELECT count(*) FROM t") == "0");
    while (outcome.ok() && outcome->kind == ApplyOutcome::Kind::kLater) outcome = f.Try(change);
    REQUIRE(outcome.ok());
    CHECK(outcome->kind == ApplyOutcome::Kind::kBlocked);
  }
  reader->Run("COMMIT");
  f.Apply(change);
  CHECK(late->Run("SELECT count(*) FROM t") == "1");
}

TEST_CASE("change sets in a row share the lock, and readers get their turn after them (A4)") {
  ReplicaFixture f(Setup(4096));
  f.ApplySql("CREATE TABLE t(x)");
  std::vector<Change> changes;
  for (int i = 1; i <= 3; ++i) {
    changes.push_back(f.primary->Run("INSERT INTO t VALUES(" + std::to_string(i) + ")"));
  }
  SqliteProcess reader(f.path);
  for (const Change& change : changes) {
    auto outcome = f.Try(change);
    while (outcome.ok() && outcome->kind == ApplyOutcome::Kind::kLater) outcome = f.Try(change);
    REQUIRE(outcome.ok());
    CHECK(outcome->kind == ApplyOutcome::Kind::kApplied);
  }
  REQUIRE(f.replica->EndTurn().ok());
  CHECK(reader.Run("SELECT count(*) FROM t") == "3");
  f.CheckSame();
}

TEST_CASE("turns at the lock are as long for readers as for apply (A4)") {
  const absl::Time start = absl::UnixEpoch();
  LockTurns turns;
  CHECK(turns.ReadersTurn(start) == absl::ZeroDuration());
  turns.Begin(start);
  CHECK_FALSE(turns.ApplyIsOver(start + kApplyTurnMax / 2));
  CHECK(turns.ApplyIsOver(start + kApplyTurnMax));
  CHECK_FALSE(turns.PendingIsOver(start + kApplyTurnMax));
  turns.Begin(start + kApplyTurnMax);  // goes on
  turns.End(start + 2 * kApplyTurnMax);
  CHECK(turns.ReadersTurn(start + 2 * kApplyTurnMax) == 2 * kApplyTurnMax);
  CHECK(turns.ReadersTurn(start + 3 * kApplyTurnMax) == kApplyTurnMax);
  CHECK(turns.ReadersTurn(start + 4 * kApplyTurnMax) == absl::ZeroDuration());
  turns.Begin(start + absl::Seconds(10));
  CHECK(turns.PendingIsOver(start + absl::Seconds(20)));
  turns.End(start + absl::Seconds(20));
  CHECK(turns.ReadersTurn(start + absl::Seconds(20)) == kReadersTurnMax);
}

TEST_CASE("readers at full speed see no torn state in a rollback mode (A4)") {
  ReplicaFixture f(Setup(1024));
  f.ApplySql(kAccounts);
  std::mt19937 random(21);
  std::vector<Change> changes;
  for (int i = 0; i < 2500; ++i) changes.push_back(f.primary->Run(Transfer(random)));
  SqliteProcess readers[] = {SqliteProcess(f.path, 10000), SqliteProcess(f.path, 10000)};
  for (SqliteProcess& reader : readers) reader.StartChecking(kSumOfTable, kSumOfIndex);
  for (const Change& change : changes) {
    while (true) {
      const auto outcome = f.Try(change);
      REQUIRE(outcome.ok());
      if (outcome->kind == ApplyOutcome::Kind::kApplied) break;
    }
    // No pause: apply itself leaves readers their turn.
  }
  REQUIRE(f.replica->EndTurn().ok());
  for (SqliteProcess& reader : readers) {
    CHECK(reader.StopChecking() == "ok");
    CHECK(reader.checked() > 10);
  }
  f.CheckSame();
}

TEST_CASE("a wrong digest in a rollback mode is refused before anything is written (A6)") {
  ReplicaFixture f(Setup(4096));
  f.ApplySql("CREATE TABLE t(x); INSERT INTO t VALUES(1)");
  SqliteProcess reader(f.path);
  Change wrong = f.primary->Run("INSERT INTO t VALUES(2)");
  wrong.entry.digest_after ^= 1;
  CHECK(absl::IsDataLoss(f.Try(wrong).status()));
  CHECK(absl::IsDataLoss(f.replica->status().stopped));
  CHECK(reader.Run("SELECT * FROM t") == "1");
  REQUIRE(f.replica->InstallCopy(f.primary->position(), f.WriteImage()).ok());
  CHECK(reader.Run("SELECT * FROM t") == "1\n2");
  CHECK(f.replica->status().stopped.ok());
  f.ApplySql("INSERT INTO t VALUES(3)");
  f.CheckSame();
}

TEST_CASE("a large wrong change set in a rollback mode locks readers out until a copy comes (A6)") {
  ReplicaFixture f(Setup(4096));
  f.ApplySql("CREATE TABLE t(id INTEGER PRIMARY KEY, x); INSERT INTO t VALUES(1, 'one')");
  SqliteProcess reader(f.path);
  CHECK(reader.Run("SELECT x FROM t") == "one");
  Change wrong = f.primary->Run(
      "WITH RECURSIVE c(i) AS (SELECT 2 UNION ALL SELECT i+1 FROM c WHERE i<3000)"
      "INSERT INTO t SELECT i, randomblob(4000) FROM c");
  REQUIRE(wrong.payload.size() > (8 << 20));
  wrong.entry.digest_after ^= 1;
  CHECK(absl::IsDataLoss(f.Try(wrong).status()));
  CHECK(reader.Run("SELECT count(*) FROM t").rfind("error 5", 0) == 0);
  CHECK(absl::IsFailedPrecondition(f.replica->Close()));
  REQUIRE(f.replica->InstallCopy(f.primary->position(), f.WriteImage()).ok());
  CHECK(reader.Run("SELECT count(*) FROM t") == "3000");
  CHECK_FALSE(std::filesystem::exists(f.directory / "copy.db"));
  f.ApplySql("DELETE FROM t WHERE id%2=0");
  f.CheckSame();
}

TEST_CASE("an unmoved change counter does not leave readers with old caches (A4)") {
  // locking_mode=EXCLUSIVE on the primary leaves the counter alone after its first commit.
  ReplicaFixture f(Setup(4096) + "; PRAGMA locking_mode=EXCLUSIVE");
  f.ApplySql("CREATE TABLE t(x); INSERT INTO t VALUES(1)");
  SqliteProcess reader(f.path);
  CHECK(reader.Run("SELECT * FROM t") == "1");
  for (int i = 2; i < 10; ++i) {
    f.ApplySql("UPDATE t SET x=" + std::to_string(i));
    REQUIRE(reader.Run("SELECT * FROM t") == std::to_string(i));
  }
  CHECK(f.replica->status().uses_wal);
  CHECK_FALSE(f.replica->status().wal_mode);
  f.primary->Exec("PRAGMA locking_mode=NORMAL");
  f.primary->Exec("SELECT * FROM t");
  reader.Quit();
  f.ApplySql("INSERT INTO t VALUES(100)");
  f.ApplySql("INSERT INTO t VALUES(101)");
  CHECK_FALSE(f.replica->status().uses_wal);
  CHECK_FALSE(std::filesystem::exists(f.path + "-wal"));
  f.CheckSame();
}

}  // namespace echofs::fs
