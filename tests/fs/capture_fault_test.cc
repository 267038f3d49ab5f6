// Each operation that the capture and the log make on the disk fails in turn, while real SQLite commits: the
// loss to look for is a commit that succeeds without being in the log, one that is in the log without being in
// the database, and a connection that is of no use afterwards (C1, C3, C4, C5, L4).
#include <cerrno>
#include <memory>
#include <string>

#include "fs/recovery.h"
#include "tests/catch.h"
#include "tests/fs/capture_fixture.h"
#include "tests/fs/shm_file.h"
#include "tests/replication/faulty_storage.h"

namespace echofs::fs {
namespace {

struct Fault {
  int error;
  bool until_healed;  // else one operation fails
};

class FaultRun {
 public:
  FaultRun(const std::string& mode, const std::string& synchronous)
      : fixture_(&storage_), shm_(fixture_.path_), synchronous_(synchronous) {
    Connect();
    fixture_.Run("pragma page_size=1024");
    fixture_.Run("pragma journal_mode=" + mode);
    fixture_.Run("create table t(id integer primary key, v)");
    fixture_.Run("create table n(v)");
    fixture_.Run("insert into n values(0)");
    fixture_.Run(Fill(10, 600));
    fixture_.Run("update t set v=hex(randomblob(300)) where id<4");
  }

  // Runs `sql`, which sets n.v to 1, with the k-th operation failing. False when there are not so many.
  bool Fail(std::uint64_t k, const Fault& fault, const std::string& sql) {
    storage_.FailOperation(k, FaultyStorage::kAll, fault.error, fault.until_healed);
    result_ = fixture_.Try(sql);
    while (fixture_.capture_->LogPending()) {
    }
    const bool failed = storage_.failed() > 0;
    storage_.Heal();
    INFO("result " << result_);
    if (!failed) REQUIRE(result_ == SQLITE_OK);
    if (!sqlite3_get_autocommit(fixture_.db_)) fixture_.Try("rollback");
    return failed;
  }

  // The commit that succeeded is there; one that failed is there or not, and whole.
  void CheckCommit(const std::string& step) {
    INFO(step);
    const std::string marked = CaptureFixture::Ask(fixture_.db_, "select v from n");
    const std::string rows =
        CaptureFixture::Ask(fixture_.db_, "select count(*) from t where id>100");
    if (result_ == SQLITE_OK) REQUIRE(marked == "1");
    if (marked != "1") REQUIRE(marked == "0");
    REQUIRE(rows == (marked == "1" ? "10" : "0"));
    REQUIRE(CaptureFixture::Ask(fixture_.db_, "pragma integrity_check") == "ok");
  }

  void GoOn() {
    CheckCommit("the same connection");
    fixture_.Run("insert into t(id, v) values(50, 'goes on')");
    CheckCommit("after another commit");
    fixture_.CheckImage();
    fixture_.Run("pragma wal_checkpoint(truncate)");
    fixture_.Run("delete from t where id=50");
    fixture_.CheckImage();
  }

  // The application dies and the node lives on: the next connection recovers what SQLite recovers.
  void Die() {
    fixture_.vfs_->allow = [](const char*, FileRole) { return false; };
    fixture_.vfs_->failed = nullptr;
    sqlite3_db_config(fixture_.db_, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
    Connect();
    CheckCommit("the next connection");
    fixture_.Check();
    fixture_.Run("insert into t(id, v) values(52, 'goes on')");
    fixture_.Run("update t set v='goes on' where id=7");
    fixture_.CheckImage();
  }

  // The application dies, and the daemon starts anew with what the files and the log hold.
  void Restart() {
    fixture_.vfs_->allow = [](const char*, FileRole) { return false; };
    fixture_.vfs_->failed = nullptr;
    fixture_.Close();
    fixture_.vfs_.reset();
    fixture_.capture_.reset();
    fixture_.log_.reset();
    fixture_.OpenLog();
    const RecoveryContext context{&storage_, fixture_.log_.get(), fixture_.directory_.path()};
    const auto fate = RecoverJournal(context, "x.db");
    REQUIRE(fate.ok());
    if (*fate == JournalFate::kRolledBack) {
      const auto position = fixture_.log_->Position("x.db");
      REQUIRE(position.ok());
      REQUIRE(RedoEntries(context, "x.db", position->index.Previous(), 1).ok());
      REQUIRE(RemoveJournal(context, "x.db").ok());
    }
    auto main = storage_.Open(fixture_.path_, {});
    REQUIRE(main.ok());
    fixture_.MakeCapture();
    REQUIRE(fixture_.capture_->SetFile(FileRole::kMain, *std::move(main)).ok());
    if (auto wal = storage_.Open(fixture_.path_ + "-wal", {}); wal.ok()) {
      REQUIRE(fixture_.capture_->SetFile(FileRole::kWal, *std::move(wal)).ok());
    }
    Connect();
    fixture_.Check();
    CheckCommit("after a restart");
    fixture_.Run("insert into t(id, v) values(51, 'goes on')");
    fixture_.CheckImage();
  }

 private:
  void Connect() {
    fixture_.LogAtOnce();
    fixture_.vfs_->failed = [this](FileRole role) {
      if (role == FileRole::kWal) REQUIRE(shm_.Repair(fixture_.capture_.get()).ok());
    };
    fixture_.Open();
    REQUIRE(fixture_.Try("pragma synchronous=" + synchronous_) == SQLITE_OK);
  }

  FaultyStorage storage_;
  CaptureFixture fixture_;
  ShmFile shm_;
  const std::string synchronous_;
  int result_ = SQLITE_OK;
};

const std::string kCommit =
    "begin; update n set v=1; update t set v=hex(randomblob(280)) where id%2; "
    "insert into t(id, v) select id+100, v from t where id<=10; commit";

// Before it, a transaction leaves frames behind in the WAL; it writes its own more than once.
const std::string kSpillingCommit =
    "pragma cache_size=3; begin; update t set v=hex(randomblob(700)); rollback; "
    "begin; update n set v=1; update t set v=hex(randomblob(290)); "
    "update t set v=hex(randomblob(280)); "
    "insert into t(id, v) select id+100, v from t where id<=10; commit";

enum class Then { kGoOn, kDie, kRestart };

void FailEach(const std::string& mode, const std::string& synchronous, const std::string& sql,
              Then then) {
  for (const Fault fault : {Fault{EIO, false}, Fault{EIO, true}, Fault{ENOSPC, true}}) {
    std::uint64_t k = 1;
    for (bool failed = true; failed; ++k) {
      INFO(mode << " " << synchronous << ", error " << fault.error
                << (fault.until_healed ? " from" : " at") << " operation " << k);
      FaultRun run(mode, synchronous);
      failed = run.Fail(k, fault, sql);
      if (then == Then::kGoOn) run.GoOn();
      if (then == Then::kDie) run.Die();
      if (then == Then::kRestart) run.Restart();
    }
    CHECK(k > 10);  // there were operations to fail
  }
}

}  // namespace

TEST_CASE("C1, C4: each operation of a commit fails in turn, and the connection goes on") {
  const std::string mode = GENERATE("wal", "delete", "truncate", "persist");
  FailEach(mode, GENERATE("normal", "full"), kCommit, Then::kGoOn);
}

TEST_CASE("C1, L5: each operation of a commit fails in turn, and the node starts anew") {
  const std::string mode = GENERATE("wal", "delete", "truncate", "persist");
  FailEach(mode, "full", kCommit, Then::kRestart);
}

TEST_CASE("C1, C3: each operation of a commit fails in turn, and the application dies") {
  const std::string mode = GENERATE("wal", "delete", "persist");
  FailEach(mode, "normal", kCommit, Then::kDie);
}

TEST_CASE("C2: each operation of a commit that writes frames again fails in turn") {
  FailEach("wal", "normal", kSpillingCommit, GENERATE(Then::kGoOn, Then::kDie, Then::kRestart));
}

TEST_CASE("C5: each operation of a commit with a checkpoint and a new WAL fails in turn") {
  const std::string checkpoint = GENERATE("passive", "restart", "truncate");
  FailEach("wal", "normal",
           kCommit + "; pragma wal_checkpoint(" + checkpoint +
               "); update t set v='after the checkpoint' where id=3",
           GENERATE(Then::kGoOn, Then::kDie, Then::kRestart));
}

TEST_CASE("C7: each operation of a change of the journal mode fails in turn") {
  FailEach("wal", "normal", kCommit + "; pragma journal_mode=delete; update t set v='x' where id=3",
           Then::kGoOn);
  FailEach("delete", "normal", "pragma journal_mode=wal; " + kCommit, Then::kGoOn);
}

}  // namespace echofs::fs
