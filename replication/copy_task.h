// A first copy, or a healing one, on its way from the primary to this node.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "replication/change_log.h"
#include "replication/page_set.h"
#include "replication/storage.h"
#include "replication/transport.h"

namespace echofs {

// A file that is removed at destruction unless somebody took it over. One thread.
class TemporaryFile {
 public:
  // Does not own `storage`. The file need not exist yet.
  TemporaryFile(Storage* storage, std::string path) : storage_(storage), path_(std::move(path)) {}
  ~TemporaryFile() {
    if (!path_.empty()) storage_->Remove(path_).IgnoreError();
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  const std::string& path() const { return path_; }
  // The file belongs to somebody else now.
  void Release() { path_.clear(); }

 private:
  Storage* const storage_;
  std::string path_;
};

// Only some pages of a database, to take it back to the cluster's history (log_rewind.h).
struct PagesWanted {
  PageSet pages;                // to be fetched
  LogIndex after;               // all other pages are as after this entry
  PageNumber page_count = 0;    // there
  std::uint32_t page_size = 0;  // bytes
};

// A whole database in a file, digest checked, durable: ready for ApplyTarget::InstallCopy. Or, with `pages`, only
// those at their places: for ApplyTarget::InstallPages, which checks the digest.
struct CompletedCopy {
  DatabasePosition position;  // of the file's content
  LogIndex log_index;         // the log's entries after this one go on from there
  std::unique_ptr<TemporaryFile> file;
  std::optional<PageSet> pages;
  std::uint64_t pages_fetched = 0;  // from the primary
};

// Shared by the thread that copies and those that watch or cancel it. Thread-safe.
class CopyTask {
 public:
  CopyTask(std::string name, std::optional<PagesWanted> wanted)
      : database(std::move(name)), rewind(std::move(wanted)) {}

  const std::string database;
  const std::optional<PagesWanted> rewind;  // a whole copy without it
  std::atomic<std::uint64_t> pages_done = 0;
  std::atomic<std::uint64_t> pages = 0;  // to be fetched; 0 before the copy begins

  void Cancel() ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    cancelled_ = true;
    if (call_ != nullptr) call_->Cancel();
  }
  bool cancelled() const ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    return cancelled_;
  }
  // The call that Cancel has to cancel too; null before it is destroyed.
  void SetCall(FetchCall* call) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    call_ = call;
    if (cancelled_ && call_ != nullptr) call_->Cancel();
  }

 private:
  mutable absl::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  FetchCall* call_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace echofs
