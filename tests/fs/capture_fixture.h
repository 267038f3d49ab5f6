// A database that real SQLite writes through a DatabaseCapture, and what a replica would make of the log.
#pragma once

#include <sqlite3.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "fs/database_capture.h"
#include "replication/digest.h"
#include "replication/ltx.h"
#include "tests/catch.h"
#include "tests/fs/capture_vfs.h"
#include "tests/replication/temp_directory.h"

namespace echofs::fs {

// What a replica would hold: the log's entries applied to nothing.
struct Image {
  std::uint32_t page_size = 0;
  std::vector<std::uint8_t> bytes;
  DatabasePosition position;

  void Apply(const LogEntry& entry, ByteSource& payload) {
    REQUIRE(entry.txid == position.txid.Next());
    REQUIRE(entry.digest_before == position.digest);
    if (entry.kind == EntryKind::kDrop) {
      bytes.clear();
      position.txid = entry.txid;
      position.digest = 0;
      return;
    }
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

class CaptureFixture {
 public:
  explicit CaptureFixture(Storage* storage = PosixStorage())
      : storage_(storage), path_(directory_ / "x.db") {
    OpenLog();
  }
  ~CaptureFixture() { Close(); }

  void OpenLog() {
    ChangeLogOptions options;
    options.storage = storage_;
    auto log = ChangeLog::Open(directory_ / "log", options);
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
    context.main_sync_interval =
        absl::InfiniteDuration();  // how busy the machine is shall not matter
    DatabasePosition position;
    position.name = "x.db";
    if (auto logged = log_->Position("x.db"); logged.ok()) position = *logged;
    capture_ = std::make_unique<DatabaseCapture>("x.db", position, context);
    vfs_ = std::make_unique<CaptureVfs>(path_, capture_.get(), storage_);
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

  // Commits go into the log before anything else is done to the files, as if by the CaptureQueue's thread.
  void LogAtOnce() {
    vfs_->allow = [this](const char*, FileRole) {
      while (capture_->LogPending()) {
      }
      return true;
    };
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
            *static_cast<std::string*>(out) +=
                (i ? "|" : "") + std::string(values[i] ? values[i] : "");
          }
          return 0;
        },
        &answer, nullptr);
    return answer;
  }

  Storage* const storage_;
  TempDirectory directory_;
  std::string path_;
  std::unique_ptr<ChangeLog> log_;
  std::unique_ptr<DatabaseCapture> capture_;
  std::unique_ptr<CaptureVfs> vfs_;
  sqlite3* db_ = nullptr;
  Image image_;
  LogIndex next_{1};
};

// SQL that inserts `rows` rows of `size` random bytes in hex.
inline std::string Fill(int rows, int size) {
  return "with recursive c(i) as (select 1 union all select i+1 from c where i<" +
         std::to_string(rows) + ") insert into t(v) select hex(randomblob(" +
         std::to_string(size / 2) + ")) from c";
}

}  // namespace echofs::fs
