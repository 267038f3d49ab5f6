// Commits whose writer believes that they failed (design C3): they are captured and kept.
#include <cerrno>
#include <string>

#include "tests/catch.h"
#include "tests/fs/capture_fixture.h"
#include "tests/fs/shm_file.h"
#include "tests/replication/faulty_storage.h"

namespace echofs::fs {
namespace {

struct Faults {
  FaultyStorage faults_;
};

// A WAL database with synchronous=FULL.
class DoubtFixture : public Faults, public CaptureFixture {
 public:
  explicit DoubtFixture(bool repair, const std::string& before = "")
      : CaptureFixture(&faults_), shm_(path_) {
    LogAtOnce();
    Open();
    if (!before.empty()) Run(before);
    Run("pragma journal_mode=wal");
    Run("pragma synchronous=full");
    Run("create table t(id integer primary key, v)");
    Run(Fill(20, 3000));
    Run("pragma wal_checkpoint(truncate)");
    Run("insert into t(v) values('first')");
    Run("update t set v='second' where v='first'");
    if (repair) {
      vfs_->failed = [this](FileRole role) {
        if (role == FileRole::kWal) REQUIRE(shm_.Repair(capture_.get()).ok());
      };
    }
  }

  // Fails in the `k`-th sync: the one that follows the commit frame, or, in a new WAL, its header.
  void CommitInDoubt(const std::string& sql, int k = 1) {
    faults_.FailOperation(k, FaultyStorage::kSync, EIO);
    REQUIRE(Try(sql) == SQLITE_IOERR);
    REQUIRE(faults_.failed() == 1);
    faults_.Heal();
  }

  ShmFile shm_;
};

}  // namespace

TEST_CASE("C3: a commit whose sync fails is found by the same connection's next transaction") {
  DoubtFixture f(/*repair=*/true);
  f.CommitInDoubt("update t set v='doubtful' where v='second'");
  CHECK(CaptureFixture::Ask(f.db_, "select count(*) from t where v='doubtful'") == "1");
  f.Run("insert into t(v) values('next')");
  CHECK(CaptureFixture::Ask(f.db_, "select count(*) from t where v in ('doubtful','next')") == "2");
  f.CheckImage();
}

// SQLite copies its header back from the shared one, without a look at whether it is valid.
TEST_CASE("C3: the connection whose sync failed keeps its snapshot, and cannot write in it") {
  DoubtFixture f(/*repair=*/true);
  sqlite3_stmt* select = nullptr;
  REQUIRE(sqlite3_prepare_v2(f.db_, "select v from t order by id desc", -1, &select, nullptr) ==
          SQLITE_OK);
  REQUIRE(sqlite3_step(select) == SQLITE_ROW);  // its read transaction stays
  f.CommitInDoubt("insert into t(v) values('doubtful')");
  CHECK(CaptureFixture::Ask(f.db_, "select v from t order by id desc limit 1") == "second");
  CHECK(CaptureFixture::Ask(f.db_, "pragma integrity_check") == "ok");
  CHECK(f.Try("update t set v='lost'") == SQLITE_IOERR);
  CHECK(CaptureFixture::Ask(f.db_, "select v from t order by id desc limit 1") == "second");
  sqlite3_finalize(select);
  CHECK(CaptureFixture::Ask(f.db_, "select v from t order by id desc limit 1") == "doubtful");
  f.Run("update t set v='after' where v='doubtful'");
  f.CheckImage();
}

// In a WAL of which nothing is known yet, that write begins with a new header.
TEST_CASE("C3: a first commit of a WAL in doubt is not dropped by a new start of the WAL") {
  DoubtFixture f(/*repair=*/true);
  f.Open();  // the last connection's close has removed the WAL
  f.Run("pragma synchronous=full");
  sqlite3_stmt* select = nullptr;
  REQUIRE(sqlite3_prepare_v2(f.db_, "select v from t order by id desc", -1, &select, nullptr) ==
          SQLITE_OK);
  REQUIRE(sqlite3_step(select) == SQLITE_ROW);
  f.CommitInDoubt("insert into t(v) values('doubtful')", /*k=*/2);
  CHECK(f.Try("update t set v='lost'") == SQLITE_IOERR);
  sqlite3_finalize(select);
  CHECK(CaptureFixture::Ask(f.db_, "select v from t order by id desc limit 1") == "doubtful");
  f.Run("update t set v='after' where v='doubtful'");
  f.CheckImage();
}

// The wal-index is in SQLite's memory then, so nobody can tell the connection; the next one finds the commit.
TEST_CASE("C3: with locking_mode=EXCLUSIVE a commit in doubt is kept when the connection closes") {
  DoubtFixture f(/*repair=*/true, "pragma locking_mode=exclusive");
  f.CommitInDoubt("update t set v='doubtful' where v='second'");
  CHECK(CaptureFixture::Ask(f.db_, "select count(*) from t where v='doubtful'") == "0");
  CHECK(f.Try("insert into t(v) values('refused')") == SQLITE_IOERR);
  f.Open();
  CHECK(CaptureFixture::Ask(f.db_, "select count(*) from t where v='doubtful'") == "1");
  f.Run("insert into t(v) values('next')");
  f.CheckImage();
}

TEST_CASE("C3: without a repair a write over a commit in doubt is refused, and is repaired then") {
  DoubtFixture f(/*repair=*/false);
  f.CommitInDoubt("update t set v='doubtful' where v='second'");
  CHECK(f.Try("insert into t(v) values('refused')") == SQLITE_IOERR);
  REQUIRE(f.shm_.Repair(f.capture_.get()).ok());
  f.Run("insert into t(v) values('next')");
  CHECK(CaptureFixture::Ask(f.db_, "select count(*) from t where v in ('doubtful','next')") == "2");
  f.CheckImage();
}

}  // namespace echofs::fs
