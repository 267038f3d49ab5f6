// Real SQLite writes through DatabaseCapture; after each step the log is applied to an image of a replica, and
// image, database and digests must agree (design C1 to C8).
#include "fs/database_capture.h"

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "fs/recovery.h"
#include "tests/catch.h"
#include "tests/fs/capture_fixture.h"

namespace echofs::fs {

TEST_CASE("C2, C4, C8: every commit of every journal mode and page size is captured") {
  const std::string mode = GENERATE("delete", "truncate", "persist", "wal");
  const int page_size = GENERATE(512, 4096, 65536);
  CaptureFixture f;
  f.Open();
  f.Run("pragma page_size=" + std::to_string(page_size));
  f.Run("pragma journal_mode=" + mode);
  f.Run("create table t(id integer primary key, v)");
  f.Run(Fill(200, 300));
  f.Run("update t set v='short' where id%3=0");
  f.Run("delete from t where id>100");
  f.Run("begin; insert into t(v) values('a'); savepoint s; delete from t; rollback to s; commit");
  f.Run("vacuum");
  f.Run(Fill(50, 2000));
  f.Run("pragma wal_checkpoint(truncate)");
  f.Run(Fill(5, 100));
  CHECK(f.capture_->position().txid.value >= 8);
  f.CheckImage();
}

TEST_CASE("C5: the log is on disk before a checkpoint writes to the database file") {
  CaptureFixture f;
  f.Open();
  f.Run("pragma journal_mode=wal");
  f.Run("pragma synchronous=off");
  f.Run("pragma wal_autocheckpoint=0");
  f.Run("create table t(id integer primary key, v)");
  f.Run(Fill(50, 1000));
  CHECK(f.log_->synced_index() < f.log_->last_index());
  f.Run("pragma wal_checkpoint");
  CHECK(f.log_->synced_index() == f.log_->last_index());
}

TEST_CASE("C4: a rolled-back transaction that spilled its cache leaves nothing in the log") {
  const std::string mode = GENERATE("delete", "truncate", "persist", "wal");
  CaptureFixture f;
  f.Open();
  f.Run("pragma journal_mode=" + mode);
  f.Run("pragma cache_size=5");
  f.Run("create table t(id integer primary key, v)");
  f.Run(Fill(100, 1000));
  const Txid before = f.capture_->position().txid;
  f.Run("begin");
  REQUIRE(f.Try("update t set v=v||'x'; insert into t(v) select v from t") == SQLITE_OK);
  REQUIRE(f.Try("rollback") == SQLITE_OK);
  f.Check();
  CHECK(f.capture_->position().txid == before);
  f.Run("begin; update t set v=v||'y'; insert into t(v) select v from t; commit");
  CHECK(f.capture_->position().txid == before.Next());
  f.CheckImage();
}

TEST_CASE("C7: journal modes change on a live database, both ways") {
  CaptureFixture f;
  f.Open();
  f.Run("create table t(id integer primary key, v)");
  for (const char* mode :
       {"wal", "delete", "persist", "truncate", "wal", "persist", "wal", "delete"}) {
    f.Run(std::string("pragma journal_mode=") + mode);
    f.Run(Fill(20, 500));
    f.Run("pragma journal_size_limit=1000");
    f.Run("update t set v='z' where id%5=0");
  }
  f.CheckImage();
}

// SQLite cuts the file when it has started the WAL anew: behind frames that are in use.
TEST_CASE("C7, C8: journal_size_limit cuts a WAL behind its frames") {
  const int limit = GENERATE(0, 25000);
  CaptureFixture f;
  f.Open();
  f.Run("pragma page_size=1024; pragma journal_mode=wal; pragma wal_autocheckpoint=0");
  f.Run("pragma journal_size_limit=" + std::to_string(limit));
  f.Run("create table t(id integer primary key, v)");
  f.Run(Fill(200, 1000));
  f.Run("pragma wal_checkpoint");
  f.Run("create table u(v)");
  f.Run("insert into u values(1)");
  f.Run("delete from t");
  f.Run("insert into u values(2)");
  f.CheckImage();
}

TEST_CASE("C7: VACUUM with a new page size replaces all pages") {
  CaptureFixture f;
  f.Open();
  f.Run("create table t(id integer primary key, v)");
  f.Run(Fill(300, 400));
  f.Run("pragma page_size=1024; vacuum");
  CHECK(f.capture_->position().page_size == 1024);
  f.Run(Fill(10, 400));
  f.Run("pragma page_size=16384; vacuum");
  CHECK(f.capture_->position().page_size == 16384);
  f.CheckImage();
}

TEST_CASE("C7: auto_vacuum shrinks the database") {
  const std::string mode = GENERATE("delete", "wal");
  CaptureFixture f;
  f.Open();
  f.Run("pragma auto_vacuum=full");
  f.Run("pragma journal_mode=" + mode);
  f.Run("create table t(id integer primary key, v)");
  f.Run(Fill(300, 1000));
  const std::uint32_t large = f.capture_->position().page_count;
  f.Run("delete from t where id>20");
  CHECK(f.capture_->position().page_count < large / 2);
  f.Run(Fill(100, 1000));
  f.CheckImage();
}

TEST_CASE("C2: frames rewritten in place are captured once their checksums hold") {
  CaptureFixture f;
  f.Open();
  f.Run("pragma journal_mode=wal");
  f.Run("pragma cache_size=3");
  f.Run("create table t(id integer primary key, v)");
  f.Run(Fill(60, 1000));
  // Each pass dirties and spills the same pages again.
  f.Run("begin; update t set v=v||'a'; update t set v=v||'b'; update t set v=v||'c'; commit");
  f.Run("begin; update t set v=v||'d'; update t set v=v||'e'; commit");
  f.CheckImage();
}

TEST_CASE("C4: duplicate commit frames of psow=0 add no change set") {
  CaptureFixture f;
  f.Open("&psow=0");
  f.Run("pragma journal_mode=wal");
  f.Run("pragma synchronous=full");
  f.Run("create table t(id integer primary key, v)");
  const Txid before = f.capture_->position().txid;
  f.Run(Fill(1, 10));
  f.Run(Fill(1, 10));
  CHECK(f.capture_->position().txid.value == before.value + 2);
  f.Run("pragma wal_checkpoint(truncate)");
  f.CheckImage();
}

TEST_CASE("C6: a write without a journal is refused once the database has committed") {
  const std::string mode = GENERATE("off", "memory");
  CaptureFixture f;
  f.Open();
  f.Run("create table t(id integer primary key, v)");
  f.Run("insert into t(v) values('kept')");
  REQUIRE(f.Try("pragma journal_mode=" + mode) == SQLITE_OK);
  CHECK(f.Try("insert into t(v) values('lost')") == SQLITE_IOERR);
  f.Open();
  f.Run("insert into t(v) values('kept too')");
  CHECK(CaptureFixture::Ask(f.db_, "select group_concat(v) from t") == "kept,kept too");
  f.CheckImage();
}

namespace {

// The row 'checkpointed' is in the database file, all others in the WAL alone, whose last connection dies.
void LeaveCommitsInWal(CaptureFixture& f, bool in_doubt) {
  f.Open();
  f.Run("pragma journal_mode=wal");
  f.Run("create table t(id integer primary key, v)");
  f.Run("insert into t(v) values('checkpointed')");
  f.Run("pragma wal_checkpoint(truncate)");
  f.Run("insert into t(v) values('in the WAL alone')");
  f.Run(Fill(100, 500));
  if (in_doubt) f.capture_->SetInDoubt();
  f.vfs_->allow = [](const char*, FileRole) { return false; };
  f.Close();
  f.vfs_->allow = nullptr;
}

}  // namespace

TEST_CASE("C3: a WAL that alone holds a commit is kept, or what it held is undone in the history") {
  const bool in_doubt = GENERATE(true, false);
  CaptureFixture f;
  LeaveCommitsInWal(f, in_doubt);
  const auto unlink = [&f] { return PosixStorage()->Remove(f.path_ + "-wal"); };
  CHECK(absl::IsFailedPrecondition(f.capture_->Remove(FileRole::kWal, unlink)));
  CHECK(std::filesystem::exists(f.path_ + "-wal"));
  // The file cannot be removed: everything stays as it was.
  const auto fail = [] { return StatusFromErrno(EIO, "made to fail"); };
  CHECK_FALSE(f.capture_->Remove(FileRole::kWal, fail, /*abandoned=*/true).ok());
  f.Check();
  if (in_doubt) f.capture_->SetInDoubt();
  REQUIRE(f.capture_->Remove(FileRole::kWal, unlink, /*abandoned=*/true).ok());
  CHECK_FALSE(std::filesystem::exists(f.path_ + "-wal"));
  f.Check();
  std::filesystem::remove(f.path_ + "-shm");
  f.Open();
  CHECK(CaptureFixture::Ask(f.db_, "select group_concat(v) from t") == "checkpointed");
  f.CheckImage();
}

TEST_CASE(
    "C3: what a WAL alone held is undone in the history when a program overwrites its header") {
  CaptureFixture f;
  LeaveCommitsInWal(f, /*in_doubt=*/false);
  REQUIRE(f.capture_->Write(FileRole::kWal, 0, std::vector<std::uint8_t>(100)).ok());
  f.Check();
  std::filesystem::remove(f.path_ + "-shm");
  f.Open();
  CHECK(CaptureFixture::Ask(f.db_, "select group_concat(v) from t") == "checkpointed");
  f.Run("insert into t(v) values('afterwards')");
  f.CheckImage();
}

TEST_CASE("C5: a WAL that nobody has opened here can be removed") {
  CaptureFixture f;
  f.Open();
  f.Run("create table t(id integer primary key, v)");
  f.Close();
  f.MakeCapture();
  auto main = PosixStorage()->Open(f.path_, {});
  REQUIRE(main.ok());
  REQUIRE(f.capture_->SetFile(FileRole::kMain, *std::move(main)).ok());
  bool removed = false;
  CHECK(f.capture_
            ->Remove(FileRole::kWal,
                     [&] {
                       removed = true;
                       return absl::OkStatus();
                     })
            .ok());
  CHECK(removed);
}

TEST_CASE("C6: from WAL straight to a mode without a journal is refused") {
  const std::string mode = GENERATE("off", "memory");
  CaptureFixture f;
  f.Open();
  f.Run("pragma journal_mode=wal");
  f.Run("create table t(id integer primary key, v)");
  f.Run("insert into t(v) values('kept')");
  CHECK(f.Try("pragma journal_mode=" + mode) == SQLITE_IOERR);
  f.Run("insert into t(v) values('kept too')");
  CHECK(CaptureFixture::Ask(f.db_, "select group_concat(v) from t") == "kept,kept too");
  CHECK(CaptureFixture::Ask(f.db_, "pragma journal_mode") == "wal");
  f.Check();
  f.CheckImage();
}

TEST_CASE("C1: a commit that SQLite publishes without checksums is refused") {
  CaptureFixture f;
  f.Open();
  f.Run("pragma journal_mode=wal");
  f.Run("create table t(id integer primary key, v)");
  f.Run(Fill(2000, 1000));
  f.Run("pragma cache_size=10");
  for (const std::string row : {"3000", "3001", "3002"}) {
    f.Run("begin");
    f.Run("insert into t values(" + row + ", 'kept')");
    // Fills the WAL, rewrites frames there, and is taken back as a whole.
    CHECK(f.Try("insert into t select id + 2000, randomblob(2500) from t") == SQLITE_CONSTRAINT);
    if (const int committed = f.Try("commit"); committed != SQLITE_OK) {
      CHECK(committed == SQLITE_IOERR);
      f.Try("rollback");
      f.Run("insert into t values(" + row + ", 'kept')");
    }
    f.Check();
    f.CheckImage();
  }
  CHECK(CaptureFixture::Ask(f.db_, "select count(*) from t where v = 'kept'") == "3");
}

// SQLITE_FCNTL_SIZE_HINT makes room before the transaction has a journal.
TEST_CASE("C7: room behind the committed pages can be made without a journal") {
  CaptureFixture f;
  f.Open();
  f.Run("create table t(id integer primary key, v)");
  f.Run(Fill(20, 500));
  const DatabasePosition position = f.capture_->position();
  const std::uint64_t end = std::uint64_t{position.page_count} * position.page_size;
  const std::vector<std::uint8_t> zero(1);
  CHECK(f.capture_->Write(FileRole::kMain, end + 20 * position.page_size - 1, zero).ok());
  CHECK_FALSE(f.capture_->Write(FileRole::kMain, end - 1, zero).ok());
  f.Run(Fill(50, 1000));
  f.CheckImage();
}

TEST_CASE("C6: a database written without a journal becomes one change set when it is closed") {
  CaptureFixture f;
  f.Open();
  f.Run("pragma journal_mode=off");
  REQUIRE(f.Try("create table t(id integer primary key, v)") == SQLITE_OK);
  REQUIRE(f.Try(Fill(100, 500)) == SQLITE_OK);
  CHECK(f.capture_->position().txid == Txid{});
  REQUIRE(f.capture_->LastWriterClosed().ok());
  CHECK(f.capture_->position().txid == Txid{1});
  f.Check();
  f.CheckImage();
}

TEST_CASE("C6: in WAL mode nothing but a checkpoint writes into the database file") {
  CaptureFixture f;
  f.Open();
  f.Run("pragma journal_mode=wal");
  f.Run("create table t(id integer primary key, v)");
  f.Run(Fill(50, 500));
  const std::vector<std::uint8_t> zero(4);
  CHECK_FALSE(f.capture_->Write(FileRole::kMain, 28, zero).ok());
  f.Run("pragma wal_checkpoint");
  CHECK_FALSE(f.capture_->Write(FileRole::kMain, 28, zero).ok());
  const std::vector<std::uint8_t> page(4096, 7);
  CHECK_FALSE(f.capture_->Write(FileRole::kMain, 4096, page).ok());
  f.Run(Fill(3, 100));
  f.CheckImage();
}

// Another connection commits `sql` just before a checkpoint does `operation` on the database file.
void CommitBeforeCheckpointDoes(std::string_view operation, const std::string& sql) {
  CaptureFixture f;
  f.Open();
  f.Run("pragma journal_mode=wal; pragma wal_autocheckpoint=0");
  f.Run("create table t(id integer primary key, v)");
  f.Run(Fill(50, 500));
  sqlite3* const checkpointer = std::exchange(f.db_, nullptr);
  f.Open();
  int commits = 0;
  f.vfs_->allow = [&](const char* at, FileRole role) {
    if (role == FileRole::kMain && at == operation && commits == 0) {
      ++commits;
      CHECK(f.Try(sql) == SQLITE_OK);
      f.LogAll();
    }
    return true;
  };
  CHECK(CaptureFixture::Ask(checkpointer, "pragma wal_checkpoint").substr(0, 2) == "0|");
  CHECK(commits == 1);
  sqlite3_close(checkpointer);
  f.Run("pragma wal_checkpoint(truncate)");
  f.CheckImage();
}

TEST_CASE("C5: a checkpoint writes pages that a commit meanwhile has replaced") {
  CommitBeforeCheckpointDoes("write", "update t set v=v||'x'");
}

TEST_CASE("C5: a checkpoint cuts off pages that a commit meanwhile has added") {
  CommitBeforeCheckpointDoes("truncate", Fill(50, 500));
}

TEST_CASE("C5: the WAL stays while it alone has pages that were cut off the database file") {
  CaptureFixture f;
  f.Open();
  f.Run("pragma journal_mode=wal; pragma wal_autocheckpoint=0");
  f.Run("create table t(id integer primary key, v)");
  f.Run(Fill(50, 500));
  f.Run("pragma wal_checkpoint(truncate)");
  CHECK_FALSE(f.capture_->Truncate(FileRole::kMain, 4096).ok());
  f.Run(Fill(50, 500));
  f.LogAll();
  const std::uint64_t before = f.capture_->position().page_count;
  f.Run("pragma wal_checkpoint");
  CHECK(f.capture_->Truncate(FileRole::kMain, (before - 1) * 4096).ok());
  CHECK(f.Try("insert into t(v) values('starts the WAL anew')") == SQLITE_IOERR);
}

TEST_CASE("C3: a write over captured frames is refused") {
  CaptureFixture f;
  f.Open();
  f.Run("pragma journal_mode=wal");
  f.Run("create table t(id integer primary key, v)");
  f.Run(Fill(3, 100));
  const std::vector<std::uint8_t> junk(24, 7);
  CHECK_FALSE(f.capture_->Write(FileRole::kWal, sqlite::FrameOffset(1, 4096), junk).ok());
  f.Run(Fill(3, 100));
  f.CheckImage();
}

// SQLite writes no such WAL, but goes by it when somebody has put it there.
TEST_CASE("C8: a WAL of another page size replaces all pages") {
  CaptureFixture f;
  f.Open();
  f.Run("pragma page_size=1024; create table t(id integer primary key, v)");
  f.Run(Fill(20, 500));
  f.Close();
  auto file = PosixStorage()->Open(f.path_ + "-wal", {.create = true});
  REQUIRE(f.capture_->SetFile(FileRole::kWal, *std::move(file)).ok());
  sqlite::WalHeader wal;
  wal.page_size = 4096;
  std::vector<std::uint8_t> bytes(sqlite::FrameOffset(2, wal.page_size));
  const MutableByteView frame = MutableByteView(bytes).subspan(sqlite::kWalHeaderSize);
  sqlite::EncodeWalHeader(&wal, MutableByteView(bytes).first(sqlite::kWalHeaderSize));
  sqlite::FrameHeader header;
  header.page = 2;
  header.commit_page_count = 4;
  sqlite::EncodeFrameHeader(header, frame.first(sqlite::kFrameHeaderSize));
  header.checksum = sqlite::FrameChecksum(wal.checksum, frame.first(8),
                                          frame.subspan(sqlite::kFrameHeaderSize), false);
  sqlite::EncodeFrameHeader(header, frame.first(sqlite::kFrameHeaderSize));
  REQUIRE(f.capture_->Write(FileRole::kWal, 0, bytes).ok());
  f.Check();
  CHECK(f.capture_->position().page_size == 4096);
  CHECK(f.capture_->position().page_count == 4);
}

// Such as by the virtual table sqlite_dbpage. No replica could apply it.
TEST_CASE("C6: a page 1 that is none of a database is refused in the WAL, too") {
  const bool rewritten = GENERATE(false, true);
  CaptureFixture f;
  f.Open();
  f.Run("pragma journal_mode=wal");
  f.Run("create table t(id integer primary key, v)");
  const auto end = std::filesystem::file_size(f.path_ + "-wal");
  std::vector<std::uint8_t> frame(sqlite::kFrameHeaderSize);
  frame[3] = 1;
  std::vector<std::uint8_t> page(4096);
  REQUIRE(f.capture_->Write(FileRole::kWal, end, frame).ok());
  if (rewritten) {  // as SQLite does when its cache spills: behind other frames
    const std::string magic = "SQLite format 3";
    std::copy(magic.begin(), magic.end(), page.begin());
    page[16] = 16;
    REQUIRE(f.capture_->Write(FileRole::kWal, end + frame.size(), page).ok());
    frame[3] = 2;
    REQUIRE(f.capture_->Write(FileRole::kWal, end + frame.size() + page.size(), frame).ok());
    REQUIRE(f.capture_->Write(FileRole::kWal, end + 2 * frame.size() + page.size(), page).ok());
    page[16] = 0;
  }
  CHECK_FALSE(f.capture_->Write(FileRole::kWal, end + frame.size(), page).ok());
  f.Run(Fill(3, 100));
  f.CheckImage();
}

TEST_CASE("L5: commits in the WAL that the log lacks are taken at the next start") {
  CaptureFixture f;
  f.Open();
  f.Run("pragma journal_mode=wal");
  f.Run("create table t(id integer primary key, v)");
  REQUIRE(f.Try(Fill(10, 500)) == SQLITE_OK);
  REQUIRE(f.Try(Fill(10, 500)) == SQLITE_OK);
  const Txid logged = f.capture_->position().txid;
  // The process ends here: copies of the files are what the next one finds.
  const std::string wal = f.path_ + "-wal";
  std::filesystem::copy(f.path_, f.directory_ / "main.copy");
  std::filesystem::copy(wal, f.directory_ / "wal.copy");
  sqlite3_db_config(f.db_, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  f.vfs_->allow = [](const char*, FileRole) { return false; };
  f.Close();
  using std::filesystem::copy_options;
  std::filesystem::copy(f.directory_ / "main.copy", f.path_, copy_options::overwrite_existing);
  std::filesystem::copy(f.directory_ / "wal.copy", wal, copy_options::overwrite_existing);

  f.MakeCapture();
  f.Open();
  auto file = PosixStorage()->Open(f.path_, {});
  REQUIRE(f.capture_->SetFile(FileRole::kMain, *std::move(file)).ok());
  file = PosixStorage()->Open(wal, {});
  REQUIRE(f.capture_->SetFile(FileRole::kWal, *std::move(file)).ok());
  f.Check();
  CHECK(f.capture_->position().txid.value == logged.value + 2);
  f.Run(Fill(10, 500));
  f.CheckImage();
}

TEST_CASE("L5: a hot journal is rolled back as SQLite would, and digests hold") {
  const std::string mode = GENERATE("delete", "truncate", "persist");
  CaptureFixture f;
  f.Open();
  f.Run("pragma journal_mode=" + mode);
  f.Run("pragma cache_size=5");
  f.Run("create table t(id integer primary key, v)");
  f.Run(Fill(100, 1000));
  const DatabasePosition before = f.capture_->position();
  REQUIRE(f.Try("begin; update t set v=v||'x'; insert into t(v) select v from t") == SQLITE_OK);
  // The application dies in the middle of its transaction: nothing that it does from here on happens.
  f.vfs_->allow = [](const char*, FileRole) { return false; };
  f.Close();
  f.vfs_.reset();

  const RecoveryContext context{PosixStorage(), f.log_.get(), f.directory_.path()};
  const auto fate = RecoverJournal(context, "x.db");
  REQUIRE(fate.ok());
  CHECK(*fate == JournalFate::kRolledBack);
  // It goes when the file is known to have what the log has.
  CHECK(std::filesystem::exists(f.path_ + "-journal"));
  REQUIRE(RemoveJournal(context, "x.db").ok());
  CHECK_FALSE(std::filesystem::exists(f.path_ + "-journal"));
  f.MakeCapture();
  f.Open();
  f.Check();
  CHECK(f.capture_->position() == before);
  f.Run(Fill(10, 500));
  f.CheckImage();
}

TEST_CASE("C4: when the journal cannot be removed the way back is captured too") {
  CaptureFixture f;
  f.Open();
  f.Run("create table t(id integer primary key, v)");
  f.Run(Fill(10, 500));
  const Txid before = f.capture_->position().txid;
  // The journal's unlink fails after its commit has been logged: SQLite rolls back.
  bool fail = true;
  REQUIRE(f.Try("begin; update t set v='new'") == SQLITE_OK);
  const auto unlink = [&fail] {
    return fail ? absl::InternalError("the disk failed") : absl::OkStatus();
  };
  f.vfs_->allow = [&](const char* operation, FileRole role) {
    if (std::string(operation) != "delete" || role != FileRole::kJournal || !fail) return true;
    CHECK_FALSE(f.capture_->Remove(FileRole::kJournal, unlink).ok());
    fail = false;
    return false;
  };
  CHECK(f.Try("commit") != SQLITE_OK);
  f.Try("rollback");
  // The next reader finds a hot journal and rolls it back.
  CHECK(CaptureFixture::Ask(f.db_, "select count(*) from t where v='new'") == "0");
  f.Check();
  CHECK(f.capture_->position().txid.value == before.value + 2);
  f.CheckImage();
}

TEST_CASE("C4: a creation that was logged and then refused is taken back in the history") {
  CaptureFixture f;
  f.Open();
  int refusals = 1;
  f.vfs_->allow = [&](const char* operation, FileRole role) {
    if (std::string(operation) != "delete" || role != FileRole::kJournal || refusals == 0)
      return true;
    --refusals;
    const auto unlink = [] { return absl::InternalError("too few replicas"); };
    CHECK_FALSE(f.capture_->Remove(FileRole::kJournal, unlink).ok());
    return false;
  };
  CHECK(f.Try("create table t(id integer primary key, v)") != SQLITE_OK);
  CHECK(f.capture_->position().txid.value == 1);
  CHECK(CaptureFixture::Ask(f.db_, "select count(*) from sqlite_master") == "0");
  CHECK(f.capture_->position().dropped);
  // The same connection makes it anew.
  f.Run("create table t(id integer primary key, v)");
  f.Run(Fill(10, 500));
  f.CheckImage();
}

}  // namespace echofs::fs
