// Real SQLite writes through DatabaseCapture; after each step the log is applied to an image of a replica, and
// image, database and digests must agree (design C1 to C8).
#include "fs/database_capture.h"

#include <sqlite3.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "fs/recovery.h"
#include "replication/digest.h"
#include "replication/ltx.h"
#include "tests/catch.h"
#include "tests/fs/capture_vfs.h"
#include "tests/replication/temp_directory.h"

namespace echofs::fs {
namespace {

// What a replica would hold: the log's entries applied to nothing.
struct Image {
  std::uint32_t page_size = 0;
  std::vector<std::uint8_t> bytes;
  DatabasePosition position;

  void Apply(const LogEntry& entry, ByteSource& payload) {
    REQUIRE(entry.txid == position.txid.Next());
    REQUIRE(entry.digest_before == position.digest);
    auto decoder = LtxDecoder::Start(&payload);
    REQUIRE(decoder.ok());
    page_size = entry.page_size;
    bytes.resize(std::size_t{entry.page_count} * page_size);
    while (true) {
      auto page = (*decoder)->Next();
      REQUIRE(page.ok());
      if (!*page) break;
      std::copy((*page)->content.begin(), (*page)->content.end(),
                bytes.begin() + std::ptrdiff_t((*page)->number - 1) * page_size);
    }
    position.txid = entry.txid;
    position.digest = entry.digest_after;
    REQUIRE(Digest() == entry.digest_after);
  }

  std::uint64_t Digest() const {
    std::uint64_t digest = 0;
    for (std::size_t i = 0; i * page_size < bytes.size(); ++i) {
      digest += PageHash(static_cast<PageNumber>(i + 1),
                         ByteView(bytes).subspan(i * page_size, page_size));
    }
    return digest;
  }
};

class Fixture {
 public:
  explicit Fixture(const std::string& name = "x.db") : path_(directory_ / name) { OpenLog(); }
  ~Fixture() { Close(); }

  void OpenLog() {
    auto log = ChangeLog::Open(directory_ / "log", {});
    REQUIRE(log.ok());
    log_ = *std::move(log);
    MakeCapture();
  }

  void MakeCapture() {
    vfs_.reset();
    CaptureContext context;
    context.log = log_.get();
    context.term = [] { return Term{1}; };
    context.wake = [] {};
    DatabasePosition position;
    position.name = "x.db";
    if (auto logged = log_->Position("x.db"); logged.ok()) position = *logged;
    capture_ = std::make_unique<DatabaseCapture>("x.db", position, context);
    vfs_ = std::make_unique<CaptureVfs>(path_, capture_.get());
  }

  void Open(const std::string& parameters = "") {
    Close();
    const std::string uri = "file:" + path_ + "?vfs=capture" + parameters;
    REQUIRE(sqlite3_open_v2(uri.c_str(), &db_,
                            SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI,
                            nullptr) == SQLITE_OK);
  }
  void Close() {
    sqlite3_close(db_);
    db_ = nullptr;
  }
  int Try(const std::string& sql) {
    return sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr);
  }
  void Run(const std::string& sql) {
    INFO(sql);
    const int rc = Try(sql);
    INFO(sqlite3_errmsg(db_));
    REQUIRE(rc == SQLITE_OK);
    Check();
  }

  void LogAll() {
    while (capture_->LogPending()) {
    }
    REQUIRE_FALSE(capture_->HasPending());
  }

  // Applies what is new in the log, and compares.
  void Check() {
    LogAll();
    const auto reader = log_->Read(next_);
    while (true) {
      auto entry = reader->Next();
      REQUIRE(entry.ok());
      if (!*entry) break;
      const auto payload = reader->Payload();
      image_.Apply(**entry, *payload);
      next_ = (*entry)->index.Next();
    }
    const DatabasePosition position = capture_->position();
    REQUIRE(position.txid == image_.position.txid);
    REQUIRE(position.digest == image_.position.digest);
    if (position.txid == Txid{}) return;
    auto scanned = capture_->ScanDigest();
    REQUIRE(scanned.ok());
    REQUIRE(*scanned == position.digest);
  }

  // The replica's image is a sound database that answers like the original.
  void CheckImage(const std::string& query = "select count(*), total(length(v)) from t") {
    const std::string path = directory_ / "image.db";
    std::filesystem::remove(path);
    auto file = PosixStorage()->Open(path, {.create = true});
    REQUIRE(file.ok());
    REQUIRE((*file)->WriteAt(0, image_.bytes).ok());
    sqlite3* image = nullptr;
    REQUIRE(sqlite3_open(path.c_str(), &image) == SQLITE_OK);
    CHECK(Ask(image, "pragma integrity_check") == "ok");
    CHECK(Ask(image, query) == Ask(db_, query));
    sqlite3_close(image);
  }

  static std::string Ask(sqlite3* db, const std::string& query) {
    std::string answer;
    sqlite3_exec(
        db, query.c_str(),
        [](void* out, int n, char** values, char**) {
          for (int i = 0; i < n; ++i) {
            *static_cast<std::string*>(out) += (i ? "|" : "") + std::string(values[i] ? values[i] : "");
          }
          return 0;
        },
        &answer, nullptr);
    return answer;
  }

  TempDirectory directory_;
  std::string path_;
  std::unique_ptr<ChangeLog> log_;
  std::unique_ptr<DatabaseCapture> capture_;
  std::unique_ptr<CaptureVfs> vfs_;
  sqlite3* db_ = nullptr;
  Image image_;
  LogIndex next_{1};
};

std::string Fill(int rows, int size) {
  return "with recursive c(i) as (select 1 union all select i+1 from c where i<" +
         std::to_string(rows) + ") insert into t(v) select hex(randomblob(" +
         std::to_string(size / 2) + ")) from c";
}

}  // namespace

TEST_CASE("C2, C4, C8: every commit of every journal mode and page size is captured") {
  const std::string mode = GENERATE("delete", "truncate", "persist", "wal");
  const int page_size = GENERATE(512, 4096, 65536);
  Fixture f;
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

TEST_CASE("C4: a rolled-back transaction that spilled its cache leaves nothing in the log") {
  const std::string mode = GENERATE("delete", "truncate", "persist", "wal");
  Fixture f;
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
  Fixture f;
  f.Open();
  f.Run("create table t(id integer primary key, v)");
  for (const char* mode : {"wal", "delete", "persist", "truncate", "wal", "persist", "wal", "delete"}) {
    f.Run(std::string("pragma journal_mode=") + mode);
    f.Run(Fill(20, 500));
    f.Run("pragma journal_size_limit=1000");
    f.Run("update t set v='z' where id%5=0");
  }
  f.CheckImage();
}

TEST_CASE("C7: VACUUM with a new page size replaces all pages") {
  Fixture f;
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
  Fixture f;
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
  Fixture f;
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
  Fixture f;
  f.Open("&psow=0");
  f.Run("pragma journal_mode=wal");
  f.Run("pragma synchronous=full");
  f.Run("create table t(id integer primary key, v)");
  const Txid before = f.capture_->position().txid;
  f.Run(Fill(1, 10));
  f.Run(Fill(1, 10));
  CHECK(f.capture_->position().txid.value == before.value + 2);
  f.CheckImage();
}

TEST_CASE("C6: a write without a journal is refused once the database has committed") {
  const std::string mode = GENERATE("off", "memory");
  Fixture f;
  f.Open();
  f.Run("create table t(id integer primary key, v)");
  f.Run("insert into t(v) values('kept')");
  REQUIRE(f.Try("pragma journal_mode=" + mode) == SQLITE_OK);
  CHECK(f.Try("insert into t(v) values('lost')") == SQLITE_IOERR);
  f.Open();
  f.Run("insert into t(v) values('kept too')");
  CHECK(Fixture::Ask(f.db_, "select group_concat(v) from t") == "kept,kept too");
  f.CheckImage();
}

TEST_CASE("C6: a database written without a journal becomes one change set when it is closed") {
  Fixture f;
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

TEST_CASE("C3: a write over captured frames is refused") {
  Fixture f;
  f.Open();
  f.Run("pragma journal_mode=wal");
  f.Run("create table t(id integer primary key, v)");
  f.Run(Fill(3, 100));
  const std::vector<std::uint8_t> junk(24, 7);
  CHECK_FALSE(f.capture_->Write(FileRole::kWal, sqlite::FrameOffset(1, 4096), junk).ok());
  f.Run(Fill(3, 100));
  f.CheckImage();
}

TEST_CASE("L5: commits in the WAL that the log lacks are taken at the next start") {
  Fixture f;
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
  Fixture f;
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
  CHECK_FALSE(std::filesystem::exists(f.path_ + "-journal"));
  f.MakeCapture();
  f.Open();
  f.Check();
  CHECK(f.capture_->position() == before);
  f.Run(Fill(10, 500));
  f.CheckImage();
}

TEST_CASE("C4: when the journal cannot be removed the way back is captured too") {
  Fixture f;
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
  CHECK(Fixture::Ask(f.db_, "select count(*) from t where v='new'") == "0");
  f.Check();
  CHECK(f.capture_->position().txid.value == before.value + 2);
  f.CheckImage();
}

}  // namespace echofs::fs
