// The sync of a database file in a rollback mode that the log takes the place of (database_capture.h): whatever the
// disk held when the power went, recovery makes of it what the log says.
#include <filesystem>
#include <limits>
#include <string>

#include "fs/recovery.h"
#include "tests/catch.h"
#include "tests/fs/capture_fixture.h"
#include "tests/replication/faulty_storage.h"

namespace echofs::fs {
namespace {

class SyncRun {
 public:
  explicit SyncRun(const std::string& mode) : fixture_(&storage_) {
    fixture_.Open();
    fixture_.Run("pragma journal_mode=" + mode);
    fixture_.Run("pragma synchronous=full");
    fixture_.Run("pragma cache_size=3");
    fixture_.Run("create table t(id integer primary key, v)");
    fixture_.Run(Fill(60, 1000));
    fixture_.Run("update t set v='real sync' where id=1");
    storage_.WriteBack();
    durable_ = fixture_.log_->last_index();  // the log may have let go of what came before
  }

  // The application and the node end without another word, then the power goes.
  void PowerLoss() {
    fixture_.vfs_->allow = [](const char*, FileRole) { return false; };
    fixture_.Close();
    fixture_.vfs_.reset();
    fixture_.capture_.reset();
    fixture_.log_.reset();
    storage_.PowerLoss();
    fixture_.OpenLog();
  }

  RecoveryContext context() { return {&storage_, fixture_.log_.get(), fixture_.directory_.path()}; }
  std::uint64_t FileDigestNow() {
    const auto position = fixture_.log_->Position("x.db");
    REQUIRE(position.ok());
    const auto digest = FileDigest(context(), "x.db", position->page_size);
    REQUIRE(digest.ok());
    return *digest;
  }

  // As DatabaseSet does after a crash of the machine, and with no more of the log than it must have.
  void CheckRecovered() {
    const auto fate = RecoverJournal(context(), "x.db");
    REQUIRE(fate.ok());
    REQUIRE(RedoEntries(context(), "x.db", durable_, std::numeric_limits<int>::max()).ok());
    CHECK(FileDigestNow() == fixture_.log_->Position("x.db")->digest);
  }

  FaultyStorage storage_;
  CaptureFixture fixture_;
  LogIndex durable_;
};

// Syncs while `sql` runs, of all files.
std::uint64_t Syncs(SyncRun& run, const std::string& sql) {
  run.storage_.FailOperation(0, FaultyStorage::kSync, 0);
  run.fixture_.Run(sql);
  return run.storage_.counted();
}

bool HasSuperJournal(const std::string& directory) {
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    if (entry.path().filename().string().find("-mj") != std::string::npos) return true;
  }
  return false;
}

}  // namespace

TEST_CASE("C4: the log takes the place of a database file's sync, and what it has is not lost") {
  const std::string mode = GENERATE("delete", "truncate", "persist");
  SyncRun run(mode);
  const std::uint64_t syncs = Syncs(run, "update t set v='of the log' where id=2");
  run.fixture_.Run("update t set v='of the log, too' where id=30");
  run.fixture_.vfs_->allow = [](const char*, FileRole) { return false; };
  // Of the journal, twice, and of the log; and of the journal's end.
  CHECK(syncs == (mode == "delete" ? 3 : 4));
  run.PowerLoss();
  CHECK(run.FileDigestNow() != run.fixture_.log_->Position("x.db")->digest);
  run.CheckRecovered();
}

TEST_CASE("C4: a rollback leaves nothing on the disk that the log does not have") {
  const std::string mode = GENERATE("delete", "truncate", "persist");
  SyncRun run(mode);
  run.fixture_.Run("begin");
  REQUIRE(run.fixture_.Try("update t set v=v||'x' where id>3") == SQLITE_OK);
  run.storage_.WriteBack();  // pages that nobody will ever have committed reach the disk
  REQUIRE(run.fixture_.Try("rollback") == SQLITE_OK);
  run.PowerLoss();
  // The journal may be on the disk still, or not: without it the file must be right by itself.
  std::filesystem::remove(run.fixture_.path_ + "-journal");
  run.CheckRecovered();
}

TEST_CASE("C4: a page that comes back to what it was does not stay on the disk as it was between") {
  const std::string mode = GENERATE("delete", "truncate", "persist");
  SyncRun run(mode);
  run.fixture_.Run("begin");
  REQUIRE(run.fixture_.Try("update t set v=lower(v) where id>3") == SQLITE_OK);
  run.storage_.WriteBack();
  REQUIRE(run.fixture_.Try("update t set v=upper(v) where id>3") == SQLITE_OK);
  REQUIRE(run.fixture_.Try("update t set v='commits' where id=1; commit") == SQLITE_OK);
  run.fixture_.Check();
  run.PowerLoss();
  std::filesystem::remove(run.fixture_.path_ + "-journal");
  run.CheckRecovered();
}

TEST_CASE("C4, C7: the file is durable before a super-journal goes, for its log has nothing yet") {
  const std::string mode = GENERATE("delete", "truncate", "persist");
  SyncRun run(mode);
  run.fixture_.Run("attach '" + run.fixture_.directory_ / "other.db" + "' as other");
  run.fixture_.Run("pragma other.journal_mode=" + mode);
  run.fixture_.Run("create table other.o(v)");
  run.fixture_.Run("update t set v='real sync' where id=4");
  const LogIndex before = run.fixture_.log_->last_index();
  // The application dies between the end of the super-journal and that of the journal.
  bool seen = false;
  run.fixture_.vfs_->allow = [&](const char*, FileRole) {
    const bool there = HasSuperJournal(run.fixture_.directory_.path());
    seen = seen || there;
    return !seen || there;
  };
  run.fixture_.Try("begin; update t set v='both' where id=5; insert into o values('both'); commit");
  REQUIRE(run.fixture_.log_->last_index() == before);
  REQUIRE(seen);
  const std::uint64_t written = run.FileDigestNow();
  run.PowerLoss();
  CHECK(run.FileDigestNow() == written);
}

}  // namespace echofs::fs
