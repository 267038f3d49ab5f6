// The WAL side of DatabaseCapture.
#include "fs/database_capture.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "fs/capture_pages.h"
#include "replication/digest.h"
#include "replication/status_macros.h"

namespace echofs::fs {
absl::Status DatabaseCapture::LoadWal() {
  std::vector<WalCommit> commits;
  ECHOFS_RETURN_IF_ERROR(wal_capture_->Load(&commits));
  {
    // Commits that are in the log already only tell where the newest content of their pages is.
    absl::MutexLock logged(&logged_);
    std::size_t known = 0;
    std::vector<std::uint8_t> page;
    for (const WalCommit& commit : commits) {
      if (commit.salt1 != position_.wal.salt1 || commit.salt2 != position_.wal.salt2 ||
          sqlite::FrameOffset(commit.frames.back().frame + 1, commit.page_size) >
              position_.wal.end_offset) {
        break;
      }
      page.resize(commit.page_size);
      for (const WalFrame& frame : commit.frames) {
        ECHOFS_RETURN_IF_ERROR(
            WalPages(wal_.get(), main_.get(), commit.page_size, {frame}).Read(0, page));
        const std::uint64_t hash = PageHash(frame.page, page);
        wal_pages_[frame.page] = {frame.frame, hash};
        wal_hashes_.insert(hash);
      }
      ++known;
    }
    commits.erase(commits.begin(), commits.begin() + static_cast<std::ptrdiff_t>(known));
  }
  if (!commits.empty()) {
    spdlog::info("{}: {} committed transactions in the WAL are not in the log yet; taking them",
                 name_, commits.size());
  }
  Enqueue(std::move(commits));
  return absl::OkStatus();
}

void DatabaseCapture::Enqueue(std::vector<WalCommit> commits) {
  if (commits.empty()) return;
  // Of a database whose files were copied here this may be the first that is known.
  wal_mode_ = true;
  for (WalCommit& commit : commits) pending_.push_back(std::move(commit));
  context_.wake();
}

absl::Status DatabaseCapture::Drain() {
  absl::MutexLock files(&files_);
  return DrainLocked();
}

absl::Status DatabaseCapture::DrainLocked() {
  const auto done = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_) {
    return pending_.empty() || !log_failure_.ok();
  };
  files_.Await(absl::Condition(&done));
  return pending_.empty() ? absl::OkStatus() : log_failure_;
}

absl::Status DatabaseCapture::WriteWal(std::uint64_t offset, ByteView bytes) {
  if (!is_database_) return wal_->WriteAt(offset, bytes);
  if (wal_capture_->RestartsWal(offset, bytes)) {
    ECHOFS_RETURN_IF_ERROR(RestartWal());
  } else if (pending_.size() >= kPendingCommitsMax || !log_failure_.ok()) {
    ECHOFS_RETURN_IF_ERROR(DrainLocked());
  }
  absl::Status check = wal_capture_->CheckWrite(offset, bytes);
  if (check.ok()) check = wal_capture_->CheckPageOne(offset, bytes);
  if (!check.ok()) {
    spdlog::error("{}: {}; refused", name_, std::string(check.message()));
    return check;
  }
  ECHOFS_RETURN_IF_ERROR(wal_->WriteAt(offset, bytes));
  std::vector<WalCommit> commits;
  ECHOFS_RETURN_IF_ERROR(wal_capture_->OnWrite(offset, bytes, &commits));
  Enqueue(std::move(commits));
  return absl::OkStatus();
}

// All that the WAL holds is in the log and, as SQLite does this only then, in the database file.
absl::Status DatabaseCapture::RestartWal() {
  ECHOFS_RETURN_IF_ERROR(DrainLocked());
  absl::MutexLock logged(&logged_);
  wal_pages_.clear();
  wal_hashes_.clear();
  return absl::OkStatus();
}

bool DatabaseCapture::LogPending() {
  const WalCommit* commit = nullptr;
  {
    absl::MutexLock files(&files_);
    if (pending_.empty()) return false;
    commit = &pending_.front();  // stays valid: only this thread removes the front
  }
  absl::Status status;
  {
    absl::MutexLock logged(&logged_);
    status = RecordWalCommit(*commit);
  }
  absl::MutexLock files(&files_);
  if (!status.ok()) {
    if (log_failure_.ok()) {
      spdlog::error("{}: a commit could not be put into the log, and will be tried again: {}",
                    name_, std::string(status.message()));
    }
    log_failure_ = status;
    return false;
  }
  if (!log_failure_.ok()) spdlog::info("{}: the log takes commits again", name_);
  log_failure_ = absl::OkStatus();
  pending_.pop_front();
  return true;
}

bool DatabaseCapture::HasPending() {
  absl::MutexLock files(&files_);
  return !pending_.empty();
}

absl::Status DatabaseCapture::CheckCheckpoint(std::uint64_t offset, ByteView bytes) {
  const std::uint32_t page_size = position_.page_size;
  const std::uint64_t committed = std::uint64_t{position_.page_count} * page_size;
  std::vector<std::uint8_t> present;
  while (!bytes.empty() && offset < committed) {
    const std::size_t size = std::min<std::uint64_t>(bytes.size(), page_size - offset % page_size);
    const ByteView part = bytes.first(size);
    const auto page = static_cast<PageNumber>(offset / page_size + 1);
    const bool logged = size == page_size && wal_hashes_.contains(PageHash(page, part));
    if (!logged && page != LockPage(page_size)) {
      // SQLITE_FCNTL_CHUNK_SIZE writes zeros where the file is about to grow: they change nothing.
      present.resize(size);
      ECHOFS_RETURN_IF_ERROR(ReadZeroFilled(*main_, offset, present));
      if (!std::equal(part.begin(), part.end(), present.begin())) {
        return Refuse(
            "a write into the database file that is no checkpoint was refused: it would "
            "not be replicated, and the database is in WAL mode. The application goes from there "
            "to PRAGMA journal_mode=OFF or MEMORY (DELETE, TRUNCATE or PERSIST would do), or "
            "changes the file without SQLite");
      }
    }
    offset += size;
    bytes = bytes.subspan(size);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::uint64_t> DatabaseCapture::OldHash(PageNumber page) {
  const auto it = wal_pages_.find(page);
  if (it != wal_pages_.end()) return it->second.hash;
  std::vector<std::uint8_t> content(position_.page_size);
  ECHOFS_RETURN_IF_ERROR(
      ReadZeroFilled(*main_, std::uint64_t{page - 1} * position_.page_size, content));
  return PageHash(page, content);
}

absl::Status DatabaseCapture::RecordWalCommit(const WalCommit& commit) {
  std::vector<WalFrame> frames = commit.frames;
  // SQLite does not change the page size by way of a WAL, but somebody may put a WAL beside the database.
  const bool replaces_all = NeverCommitted() || commit.page_size != position_.page_size;
  const std::uint32_t old_count = replaces_all ? 0 : position_.page_count;
  // Pages that the database has grown by without writing them, and all others when nothing old counts.
  if (commit.page_count > old_count) {
    for (PageNumber page = old_count + 1; page <= commit.page_count; ++page) {
      const auto it = wal_pages_.find(page);
      frames.push_back({page, it == wal_pages_.end() ? 0 : it->second.frame});
    }
  }
  // Of several frames of a page the newest counts.
  std::sort(frames.begin(), frames.end(), [](const WalFrame& a, const WalFrame& b) {
    return a.page != b.page ? a.page < b.page : a.frame > b.frame;
  });
  frames.erase(std::unique(frames.begin(), frames.end(),
                           [](const WalFrame& a, const WalFrame& b) { return a.page == b.page; }),
               frames.end());
  std::erase_if(frames, [&commit](const WalFrame& frame) {
    return frame.page > commit.page_count || frame.page == LockPage(commit.page_size);
  });

  WalPages pages(wal_.get(), main_.get(), commit.page_size, frames);
  CommitDraft draft;
  draft.page_size = commit.page_size;
  draft.page_count = commit.page_count;
  draft.wal = {commit.salt1, commit.salt2,
               sqlite::FrameOffset(commit.frames.front().frame, commit.page_size),
               sqlite::FrameOffset(commit.frames.back().frame + 1, commit.page_size)};
  draft.attributes = AttributesOf(*main_);
  draft.pages = &pages;
  draft.old_hash = [this](PageNumber page) ABSL_NO_THREAD_SAFETY_ANALYSIS { return OldHash(page); };
  ECHOFS_ASSIGN_OR_RETURN(std::optional<RecordedCommit> recorded,
                          RecordCommit(*context_.log, context_.term(), position_, draft));
  if (!recorded) {  // a duplicate commit frame: the pages are as they were
    for (const WalFrame& frame : frames) {
      ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t hash, OldHash(frame.page));
      wal_hashes_.insert(hash);
    }
    return absl::OkStatus();
  }
  for (std::size_t i = 0; i < frames.size(); ++i) {
    if (frames[i].frame == 0) continue;
    wal_pages_[frames[i].page] = {frames[i].frame, recorded->page_hashes[i]};
    wal_hashes_.insert(recorded->page_hashes[i]);
  }
  position_ = std::move(recorded->position);
  return absl::OkStatus();
}

bool DatabaseCapture::HasCommitUnknownTo(ByteView shm) {
  const sqlite::WalIndexSummary index = sqlite::ParseWalIndexSummary(shm);
  absl::MutexLock files(&files_);
  if (!is_database_ || !wal_capture_ || !wal_capture_->header() || !index.initialized) return false;
  const sqlite::WalHeader& wal = *wal_capture_->header();
  // With other salts the WAL is about to be started anew, or was, and its frames are all in the database.
  if (index.salt1 != wal.salt1 || index.salt2 != wal.salt2) return false;
  return index.max_frame < wal_capture_->captured_frames();
}

}  // namespace echofs::fs
