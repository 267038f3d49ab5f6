// Change sets into a WAL-mode database under real SQLite readers (design A1, A2, A3, A6).
#include <filesystem>
#include <random>

#include "fs/file_locks.h"
#include "tests/catch.h"
#include "tests/fs/replica_fixture.h"

namespace echofs::fs {
namespace {

std::string Setup(int page_size) {
  return "PRAGMA page_size=" + std::to_string(page_size) +
         "; PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=200";
}

const char kAccounts[] =
    "CREATE TABLE account(id INTEGER PRIMARY KEY, balance INT, pad);"
    "CREATE INDEX account_balance ON account(balance);"
    "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<200)"
    "INSERT INTO account SELECT i, 1000, hex(randomblob(60)) FROM c";

std::string Transfer(std::mt19937& random) {
  const std::string from = std::to_string(1 + random() % 200);
  const std::string to = std::to_string(1 + random() % 200);
  const std::string amount = std::to_string(random() % 100);
  return "BEGIN; UPDATE account SET balance=balance-" + amount + " WHERE id=" + from +
         "; UPDATE account SET balance=balance+" + amount + " WHERE id=" + to + "; COMMIT";
}

// The sum through the table and through the index: it takes one wrong page to make them differ.
const char kSumOfTable[] = "SELECT sum(balance), count(*) FROM account NOT INDEXED";
const char kSumOfIndex[] = "SELECT sum(balance), count(*) FROM account INDEXED BY account_balance";

std::vector<Change> Transfers(PrimaryDatabase& primary, int count, std::mt19937& random) {
  std::vector<Change> changes;
  for (int i = 0; i < count; ++i) changes.push_back(primary.Run(Transfer(random)));
  return changes;
}

}  // namespace

TEST_CASE("a WAL database is applied change set by change set (A2)") {
  const int page_size = GENERATE(512, 4096, 65536);
  ReplicaFixture f(Setup(page_size));
  f.ApplySql("CREATE TABLE t(x, y)");
  CHECK(f.replica->status().uses_wal);
  CHECK(f.replica->status().wal_mode);
  SqliteProcess reader(f.path);
  CHECK(reader.Run("SELECT count(*) FROM t") == "0");
  for (int i = 1; i <= 20; ++i) {
    f.ApplySql("INSERT INTO t VALUES(" + std::to_string(i) + ", randomblob(2000))");
    REQUIRE(reader.Run("SELECT count(*), max(x) FROM t") ==
            std::to_string(i) + "|" + std::to_string(i));
  }
  CHECK(reader.Run("PRAGMA journal_mode") == "wal");
  f.CheckSame();
}

TEST_CASE(
    "a reader keeps its snapshot over 5000 change sets, and the WAL restarts when it leaves (A3)") {
  ReplicaDatabaseOptions options;
  options.pause_frames = 1000000;
  ReplicaFixture f(Setup(512), options);
  f.ApplySql(kAccounts);
  std::mt19937 random(11);
  f.Apply(f.primary->Run(Transfer(random)));
  SqliteProcess reader(f.path);
  SqliteProcess other(f.path);
  const std::string everything = "SELECT group_concat(balance) FROM account";
  reader.Run("PRAGMA cache_size=1; BEGIN");
  const std::string snapshot = reader.Run(everything);
  for (int i = 0; i < 5000; ++i) {
    f.Apply(f.primary->Run(Transfer(random)));
    if (i % 500 == 0) {
      REQUIRE(reader.Run(everything) == snapshot);
      REQUIRE(other.Run("SELECT sum(balance) FROM account") == "200000");
    }
  }
  CHECK(f.replica->status().wal.restarts == 0);
  CHECK(f.replica->status().wal_frames > 9000);  // beyond two region borders
  CHECK(reader.Run(everything) == snapshot);
  CHECK(reader.Run("COMMIT") == "");
  CHECK(reader.Run(everything) != snapshot);
  for (int i = 0; i < 600 && f.replica->status().wal.restarts == 0; ++i) {
    f.Apply(f.primary->Run(Transfer(random)));
  }
  CHECK(f.replica->status().wal.restarts == 1);
  CHECK(f.replica->status().wal_frames < 1000);
  CHECK(reader.Run("SELECT sum(balance) FROM account") == "200000");
  f.CheckSame();
}

TEST_CASE("readers at full speed see no torn state while the WAL restarts under them (A2, A3)") {
  ReplicaDatabaseOptions options;
  options.checkpoint_frames = GENERATE(7, 60, 1000);
  const int page_size = GENERATE(512, 4096);
  ReplicaFixture f(Setup(page_size), options);
  f.ApplySql(kAccounts);
  std::mt19937 random(12);
  const std::vector<Change> changes = Transfers(*f.primary, 3000, random);
  SqliteProcess readers[] = {SqliteProcess(f.path), SqliteProcess(f.path), SqliteProcess(f.path)};
  SqliteProcess mapped(f.path);
  mapped.Run("PRAGMA mmap_size=10000000");
  readers[0].Run("PRAGMA cache_size=1");
  for (SqliteProcess& reader : readers) reader.StartChecking(kSumOfTable, kSumOfIndex);
  mapped.StartChecking(kSumOfTable, kSumOfIndex);
  for (const Change& change : changes) f.Apply(change);
  for (SqliteProcess& reader : readers) {
    CHECK(reader.StopChecking() == "ok");
    CHECK(reader.checked() > 10);
  }
  CHECK(mapped.StopChecking() == "ok");
  CHECK(f.replica->status().wal.checkpoints > 0);
  f.CheckSame();
}

TEST_CASE("a reader of the bare database file keeps it from being written (A3)") {
  ReplicaDatabaseOptions options;
  options.checkpoint_frames = 10;
  ReplicaFixture f(Setup(1024), options);
  f.ApplySql(kAccounts);
  std::mt19937 random(18);
  while (f.replica->status().wal.restarts == 0) f.ApplySql(Transfer(random));
  REQUIRE(f.replica->status().wal_frames ==
          0);  // so a reader takes slot 0 and no notice of the WAL
  SqliteProcess reader(f.path);
  const std::string everything = "SELECT group_concat(balance) FROM account";
  reader.Run("PRAGMA cache_size=1; BEGIN");
  const std::string snapshot = reader.Run(everything);
  const std::uint64_t checkpoints = f.replica->status().wal.checkpoints;
  for (int i = 0; i < 100; ++i) {
    f.ApplySql(Transfer(random));
    REQUIRE(reader.Run(everything) == snapshot);
  }
  CHECK(f.replica->status().wal.checkpoints == checkpoints);
  CHECK(reader.Run("COMMIT; PRAGMA integrity_check") == "ok");
  for (int i = 0; i < 10; ++i) f.ApplySql(Transfer(random));
  CHECK(f.replica->status().wal.checkpoints > checkpoints);
  f.CheckSame();
}

TEST_CASE("at every store of the wal-index another process reads a committed state (A2)") {
  ReplicaDatabaseOptions options;
  options.checkpoint_frames = 5;
  ReplicaFixture f(Setup(512), options);
  f.ApplySql(kAccounts);
  SqliteProcess reader(f.path);
  reader.Run(kSumOfTable);
  auto locks = *LockFile::Open(f.path + "-shm");
  int seen = 0;
  std::string wrong;
  f.cache.before_shm_store = [&](std::uint64_t offset, std::size_t) {
    // Between the two copies of the header, and while slots are locked, SQLite tries again for
    // seconds: so ask only where it need not.
    if (offset == 0) return;
    if (!*locks->TryLock(LockKind::kExclusive, sqlite::ShmReadLock(0), 5)) return;
    REQUIRE(locks->Unlock(sqlite::ShmReadLock(0), 5).ok());
    ++seen;
    const std::string sums =
        reader.Run(std::string("BEGIN;") + kSumOfTable + ";" + kSumOfIndex + ";COMMIT");
    if (sums != "200000|200\n200000|200") wrong = sums;
  };
  std::mt19937 random(13);
  for (int i = 0; i < 200; ++i) f.ApplySql(Transfer(random));
  f.cache.before_shm_store = nullptr;
  CHECK(seen > 400);
  CHECK(wrong == "");
  f.CheckSame();
}

TEST_CASE("writers on a replica get SQLITE_BUSY and cannot remove the WAL (A1)") {
  ReplicaFixture f(Setup(4096));
  f.ApplySql("CREATE TABLE t(x)");
  SqliteProcess app(f.path);
  CHECK(app.Run("INSERT INTO t VALUES(1)").rfind("error 5", 0) == 0);
  CHECK(app.Run("PRAGMA wal_checkpoint(TRUNCATE)") == "1|-1|-1");
  CHECK(app.Run("PRAGMA journal_mode=DELETE").rfind("error 5", 0) == 0);
  CHECK(app.Run("BEGIN IMMEDIATE").rfind("error 5", 0) == 0);
  app.Quit();
  CHECK(std::filesystem::exists(f.path + "-wal"));
  f.ApplySql("INSERT INTO t VALUES(2)");
  f.CheckSame();
}

TEST_CASE("growth over region borders in one change set and in many (A2)") {
  ReplicaDatabaseOptions options;
  options.checkpoint_frames = 100000;
  options.pause_frames = 100000;
  ReplicaFixture f("PRAGMA page_size=512; PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0",
                   options);
  f.ApplySql("CREATE TABLE t(id INTEGER PRIMARY KEY, x)");
  SqliteProcess reader(f.path);
  const std::string fill =
      "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<5000)"
      "INSERT INTO t(x) SELECT randomblob(1000) FROM c";
  f.ApplySql(fill);
  CHECK(f.replica->status().wal_frames > 8158);
  CHECK(reader.Run("SELECT count(*), sum(length(x)) FROM t") == "5000|5000000");
  CHECK(reader.Run("PRAGMA integrity_check") == "ok");
  CHECK(std::filesystem::file_size(f.path + "-shm") % WalIndex::kRegionSize == 0);
  f.ApplySql("UPDATE t SET x=randomblob(900) WHERE id%7=0");
  CHECK(reader.Run("PRAGMA integrity_check") == "ok");
  f.CheckSame();
}

TEST_CASE("VACUUM shrinks the file once nobody reads the old pages (A3)") {
  ReplicaDatabaseOptions options;
  options.checkpoint_frames = 20;
  ReplicaFixture f(Setup(1024), options);
  f.ApplySql(
      "CREATE TABLE t(id INTEGER PRIMARY KEY, x);"
      "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<500)"
      "INSERT INTO t SELECT i, randomblob(900) FROM c");
  SqliteProcess reader(f.path);
  reader.Run("PRAGMA cache_size=1; BEGIN");
  CHECK(reader.Run("SELECT count(*) FROM t") == "500");
  f.ApplySql("DELETE FROM t WHERE id>20");
  f.ApplySql("VACUUM");
  for (int i = 0; i < 30; ++i) f.ApplySql("UPDATE t SET x=randomblob(900) WHERE id=3");
  CHECK(reader.Run("SELECT count(*), sum(length(x)) FROM t") == "500|450000");
  CHECK(reader.Run("PRAGMA integrity_check") == "ok");
  CHECK(reader.Run("COMMIT; SELECT count(*) FROM t") == "20");
  for (int i = 0; i < 60; ++i) f.ApplySql("UPDATE t SET x=randomblob(900) WHERE id=3");
  CHECK(std::filesystem::file_size(f.path) == f.primary->image().size());
  // Pages that come back after a shrink must not show what was there before.
  f.ApplySql(
      "WITH RECURSIVE c(i) AS (SELECT 100 UNION ALL SELECT i+1 FROM c WHERE i<400)"
      "INSERT INTO t SELECT i, randomblob(900) FROM c");
  CHECK(reader.Run("SELECT count(*) FROM t") == "321");
  f.CheckSame();
}

TEST_CASE("a wrong digest is refused and nothing of it is visible (A6)") {
  ReplicaFixture f(Setup(4096));
  f.ApplySql("CREATE TABLE t(x)");
  f.ApplySql("INSERT INTO t VALUES(1)");
  SqliteProcess reader(f.path);
  CHECK(reader.Run("SELECT * FROM t") == "1");
  Change change = f.primary->Run("INSERT INTO t VALUES(2)");
  Change wrong = change;
  wrong.entry.digest_after ^= 1;
  CHECK(absl::IsDataLoss(f.Try(wrong).status()));
  CHECK(reader.Run("SELECT * FROM t") == "1");
  CHECK(reader.Run("PRAGMA integrity_check") == "ok");
  CHECK(absl::IsDataLoss(f.replica->status().stopped));
  CHECK(absl::IsDataLoss(f.Try(change).status()));  // stopped until a copy comes
  // SQLite's recovery does not find it either.
  std::filesystem::copy_file(f.path, f.directory / "c");
  std::filesystem::copy_file(f.path + "-wal", f.directory / "c-wal");
  SqliteProcess other(f.directory / "c");
  CHECK(other.Run("SELECT * FROM t") == "1");

  const auto installed = f.replica->InstallCopy(f.primary->position(), f.WriteImage());
  REQUIRE(installed.ok());
  CHECK(reader.Run("SELECT * FROM t") == "1\n2");
  f.ApplySql("INSERT INTO t VALUES(3)");
  f.CheckSame();
}

TEST_CASE("a database that has stopped can be deleted and made again") {
  ReplicaFixture f(Setup(4096));
  f.ApplySql("CREATE TABLE t(x)");
  Change wrong = f.primary->Run("INSERT INTO t VALUES(1)");
  wrong.entry.digest_after ^= 1;
  CHECK(absl::IsDataLoss(f.Try(wrong).status()));
  REQUIRE(f.Try(f.primary->Drop()).ok());
  CHECK(f.replica->status().stopped.ok());
  CHECK_FALSE(std::filesystem::exists(f.path));
}

TEST_CASE("a damaged or foreign change set changes nothing") {
  ReplicaFixture f(Setup(512));
  f.ApplySql(kAccounts);
  SqliteProcess reader(f.path);
  const std::string before = reader.Run("SELECT group_concat(balance) FROM account");
  Change change = f.primary->Run("UPDATE account SET balance=balance+1");
  Change skipped = change;
  skipped.entry.txid = skipped.entry.txid.Next();
  CHECK(absl::IsFailedPrecondition(f.Try(skipped).status()));
  Change damaged = change;
  damaged.payload[damaged.payload.size() / 2] ^= 0x10;
  CHECK(absl::IsDataLoss(f.Try(damaged).status()));
  CHECK(reader.Run("SELECT group_concat(balance) FROM account") == before);
  CHECK(reader.Run("PRAGMA integrity_check") == "ok");
}

TEST_CASE("a reader that is killed leaves no trouble (A3)") {
  ReplicaDatabaseOptions options;
  options.checkpoint_frames = 30;
  ReplicaFixture f(Setup(1024), options);
  f.ApplySql(kAccounts);
  std::mt19937 random(14);
  SqliteProcess steady(f.path);
  steady.StartChecking(kSumOfTable, kSumOfIndex);
  for (int round = 0; round < 40; ++round) {
    SqliteProcess victim(f.path);
    victim.StartChecking(kSumOfTable, kSumOfIndex);
    const int count = 1 + random() % 60;
    for (int i = 0; i < count; ++i) f.ApplySql(Transfer(random));
    victim.Kill();
  }
  CHECK(steady.StopChecking() == "ok");
  steady.Quit();
  const std::uint64_t restarts = f.replica->status().wal.restarts;
  for (int i = 0; i < 60; ++i) f.ApplySql(Transfer(random));
  CHECK(f.replica->status().wal.restarts > restarts);
  f.CheckSame();
}

TEST_CASE("failing syncs keep the WAL from being checkpointed or restarted, nothing else (A3)") {
  const int failing = GENERATE(0, 1);  // which sync of a cycle: before the backfill, at the restart
  ReplicaDatabaseOptions options;
  options.checkpoint_frames = 20;
  ReplicaFixture f(Setup(1024), options);
  f.ApplySql(kAccounts);
  std::mt19937 random(19);
  for (int i = 0; i < 30; ++i) f.ApplySql(Transfer(random));
  const std::uint64_t restarts = f.replica->status().wal.restarts;
  SqliteProcess reader(f.path);
  int syncs = 0;
  f.cache.fail_wal_sync = [&] { return failing == 0 || syncs++ % 2 == 1; };
  for (int i = 0; i < 60; ++i) f.ApplySql(Transfer(random));
  CHECK(f.replica->status().wal.restarts == restarts);
  CHECK(reader.Run("PRAGMA integrity_check") == "ok");
  // After a crash SQLite finds everything in the files too.
  std::filesystem::copy_file(f.path, f.directory / "c");
  std::filesystem::copy_file(f.path + "-wal", f.directory / "c-wal");
  SqliteProcess other(f.directory / "c");
  const std::string everything = "SELECT group_concat(balance) FROM account NOT INDEXED";
  CHECK(other.Run(everything) == reader.Run(everything));
  f.cache.fail_wal_sync = nullptr;
  for (int i = 0; i < 60; ++i) f.ApplySql(Transfer(random));
  CHECK(f.replica->status().wal.restarts > restarts);
  f.CheckSame();
}

TEST_CASE(
    "readers that overlap all the time do not starve the restart: apply pauses, bounded (A3)") {
  ReplicaDatabaseOptions options;
  options.checkpoint_frames = 20;
  options.pause_frames = 100;
  options.pause_max = absl::Seconds(10);
  ReplicaFixture f(Setup(1024), options);
  f.ApplySql(kAccounts);
  std::mt19937 random(15);
  SqliteProcess a(f.path);
  SqliteProcess b(f.path);
  a.Run("PRAGMA cache_size=1; BEGIN"), a.Run("SELECT count(*) FROM account");
  std::uint64_t blocked = 0;
  for (int i = 0; i < 300; ++i) {
    // One reader is always in a transaction; they take turns.
    SqliteProcess& next = i % 2 == 0 ? b : a;
    SqliteProcess& last = i % 2 == 0 ? a : b;
    next.Run("BEGIN"), next.Run("SELECT count(*) FROM account");
    last.Run("COMMIT");
    const Change change = f.primary->Run(Transfer(random));
    while (true) {
      const auto outcome = f.Try(change);
      REQUIRE(outcome.ok());
      if (outcome->kind == ApplyOutcome::Kind::kApplied) break;
      CHECK((outcome->blocked_by_pid == a.pid() || outcome->blocked_by_pid == b.pid()));
      ++blocked;
      // While nothing is applied, readers come and go as before.
      last.Run("BEGIN"), last.Run("SELECT count(*) FROM account");
      next.Run("COMMIT"), next.Run("BEGIN"), next.Run("SELECT count(*) FROM account");
      last.Run("COMMIT");
    }
  }
  CHECK(f.replica->status().pauses > 0);
  CHECK(blocked > 0);
  CHECK(f.replica->status().wal.restarts > 0);
  CHECK(f.replica->status().wal_frames < 300);

  // A reader that stays makes a pause end by its time.
  f.options.pause_max = absl::Milliseconds(1);
  f.OpenReplica(f.replica->position());
  const std::uint64_t before = f.replica->status().wal_frames;
  for (int i = 0; i < 400; ++i) {
    const Change change = f.primary->Run(Transfer(random));
    while (f.Try(change)->kind != ApplyOutcome::Kind::kApplied) {
    }
  }
  CHECK(f.replica->status().wal_frames > before + 300);
  CHECK(f.replica->status().pauses > 1);
}

TEST_CASE("without the read marks a held slot bounds every checkpoint (A3)") {
  ReplicaDatabaseOptions options;
  options.checkpoint_frames = 20;
  ReplicaFixture f(Setup(1024), options);
  f.ApplySql(kAccounts);
  std::mt19937 random(16);
  f.ApplySql(Transfer(random));
  f.cache.retrieve_nothing = true;
  SqliteProcess reader(f.path);
  reader.Run("PRAGMA cache_size=1; BEGIN");
  const std::string snapshot = reader.Run("SELECT group_concat(balance) FROM account");
  for (int i = 0; i < 100; ++i) f.ApplySql(Transfer(random));
  CHECK(f.replica->status().wal.checkpoints == 0);
  CHECK(reader.Run("SELECT group_concat(balance) FROM account") == snapshot);
  reader.Run("COMMIT");
  for (int i = 0; i < 20; ++i) f.ApplySql(Transfer(random));
  CHECK(f.replica->status().wal.restarts > 0);
  f.CheckSame();
}

TEST_CASE("what serves READs of -shm is what was stored, but for the read marks (A2)") {
  ReplicaDatabaseOptions options;
  options.checkpoint_frames = 50;
  ReplicaFixture f(Setup(512), options);
  f.ApplySql(kAccounts);
  SqliteProcess reader(f.path);
  std::mt19937 random(17);
  for (int i = 0; i < 200; ++i) {
    f.ApplySql(Transfer(random));
    if (i % 10 == 0) reader.Run(kSumOfTable);
    std::vector<std::uint8_t> served(*f.replica->ShmSize());
    REQUIRE(*f.replica->ReadShm(0, served) == served.size());
    std::vector<std::uint8_t> stored(served.size());
    const auto file = PosixStorage()->Open(f.path + "-shm", {});
    REQUIRE(*(*file)->ReadAt(0, stored) == stored.size());
    std::copy(stored.begin() + 100, stored.begin() + 120, served.begin() + 100);
    REQUIRE(served == stored);
  }
}

TEST_CASE("a change set of many pages is appended in pieces") {
  ReplicaFixture f(Setup(65536));
  f.ApplySql("CREATE TABLE t(id INTEGER PRIMARY KEY, x)");
  SqliteProcess reader(f.path);
  CHECK(reader.Run("SELECT count(*) FROM t") == "0");
  f.ApplySql(
      "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<100)"
      "INSERT INTO t SELECT i, randomblob(150000) FROM c");
  CHECK(reader.Run("SELECT count(*), sum(length(x)) FROM t") == "100|15000000");
  f.CheckSame();
}

}  // namespace echofs::fs
