#include "fs/file_locks.h"

#include <fstream>

#include "fs/sqlite_format.h"
#include "tests/catch.h"
#include "tests/fs/sqlite_process.h"
#include "tests/replication/temp_directory.h"

namespace echofs::fs {
namespace {

std::unique_ptr<LockFile> OpenLocks(const std::string& path) {
  std::ofstream(path, std::ios::app).flush();
  auto file = LockFile::Open(path);
  REQUIRE(file.ok());
  return *std::move(file);
}

}  // namespace

TEST_CASE("a range is locked as a whole or not at all") {
  TempDirectory directory;
  auto a = OpenLocks(directory / "f");
  auto b = OpenLocks(directory / "f");
  CHECK(*a->TryLock(LockKind::kExclusive, 103, 1));
  CHECK_FALSE(*b->TryLock(LockKind::kExclusive, 100, 5));
  CHECK(*a->TryLock(LockKind::kExclusive, 100, 3));  // nothing of it had stuck to b
  CHECK(a->Unlock(100, 5).ok());
  CHECK(*b->TryLock(LockKind::kShared, 100, 5));
  CHECK(*a->TryLock(LockKind::kShared, 100, 5));
  CHECK_FALSE(*a->TryLock(LockKind::kExclusive, 100, 5));
  CHECK_FALSE(*b->TryLock(LockKind::kExclusive, 100, 1));  // a's shared lock survived that
}

TEST_CASE("opening a file that is not there is NotFound") {
  TempDirectory directory;
  CHECK(absl::IsNotFound(LockFile::Open(directory / "none").status()));
}

TEST_CASE("PENDING keeps new readers out and EXCLUSIVE comes when the last one leaves (A4)") {
  TempDirectory directory;
  SqliteProcess reader(directory / "db");
  SqliteProcess late(directory / "db");
  reader.Run("CREATE TABLE t(x); BEGIN; SELECT * FROM t");
  auto file = OpenLocks(directory / "db");
  DatabaseLock lock(file.get());
  CHECK(*lock.TryReserved());
  auto attempt = lock.TryExclusive(DatabaseLock::Pending::kKeep);
  REQUIRE(attempt.ok());
  CHECK_FALSE(attempt->held);
  CHECK(attempt->blocked_by_pid == reader.pid());
  CHECK(late.Run("SELECT * FROM t").rfind("error 5", 0) == 0);
  CHECK(reader.Run("SELECT * FROM t; COMMIT") == "");
  CHECK(lock.TryExclusive(DatabaseLock::Pending::kKeep)->held);
  CHECK(reader.Run("SELECT * FROM t").rfind("error 5", 0) == 0);
  CHECK(lock.DowngradeToReserved().ok());
  CHECK(reader.Run("SELECT * FROM t") == "");
  CHECK(reader.Run("INSERT INTO t VALUES(1)").rfind("error 5", 0) == 0);
  CHECK(lock.UnlockAll().ok());
  CHECK(reader.Run("INSERT INTO t VALUES(1)") == "");
}

}  // namespace echofs::fs
