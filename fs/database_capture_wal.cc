// The WAL side of DatabaseCapture.
#include "fs/database_capture.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "fs/capture_pages.h"
#include "replication/digest.h"
#include "replication/failpoint.h"
#include "replication/status_macros.h"

namespace echofs::fs {
namespace {

// Below it a WAL has the size that SQLite gives it: by default it is checkpointed and used again at half of that.
constexpr std::uint64_t kWalGrownFrom = 8 << 20;
constexpr std::uint64_t kWalGrownBy = 1 << 20;

}  // namespace

absl::Status DatabaseCapture::SetWal(std::shared_ptr<File> file) {
  {
    absl::MutexLock logged(&logged_);  // LogPending reads wal_ under it
    wal_ = std::move(file);
    wal_capture_ = std::make_unique<WalCapture>(wal_.get());
  }
  absl::Status loaded = is_database_ ? LoadWal() : absl::OkStatus();
  if (loaded.ok()) return absl::OkStatus();
  // As if it had not been opened: what was found is found again the next time.
  absl::MutexLock logged(&logged_);
  wal_pages_.clear();
  wal_capture_.reset();
  wal_.reset();
  return loaded;
}

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
  const absl::Time now = absl::Now();
  for (WalCommit& commit : commits) {
    commit.captured = now;
    pending_.push_back(std::move(commit));
  }
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
  if (Fenced()) return RefuseFenced();
  absl::Status written = WriteFrames(offset, bytes);
  if (!written.ok()) in_doubt_ = true;
  return written;
}

absl::Status DatabaseCapture::CatchUpWal() {
  if (!wal_capture_) return absl::OkStatus();  // nobody has opened it here
  std::vector<WalCommit> commits;
  absl::Status status = wal_capture_->CatchUp(&commits);
  Enqueue(std::move(commits));
  return status;
}

absl::Status DatabaseCapture::WriteFrames(std::uint64_t offset, ByteView bytes) {
  ECHOFS_RETURN_IF_ERROR(CatchUpWal());
  const bool restarts = wal_capture_->RestartsWal(offset, bytes);
  if (restarts) {
    ECHOFS_RETURN_IF_ERROR(wal_capture_->IsNewStart(offset, bytes) ? RestartWal() : DiscardWal());
  } else if (pending_.size() >= kPendingCommitsMax || !log_failure_.ok()) {
    ECHOFS_RETURN_IF_ERROR(DrainLocked());
  }
  absl::Status check = wal_capture_->CheckWrite(offset, bytes);
  if (check.ok()) check = wal_capture_->CheckPageOne(offset, bytes);
  if (!check.ok()) {
    spdlog::error("{}: {}; refused", name_, std::string(check.message()));
    return check;
  }
  if (restarts) Failpoint("checkpoint.wal_restart.before");
  Failpoint("commit.wal_write.before");
  if (absl::Status written = wal_->WriteAt(offset, bytes); !written.ok()) {
    wal_capture_->OnFailedWrite();
    return written;
  }
  if (restarts) Failpoint("checkpoint.wal_restart.after");
  Failpoint("commit.wal_write.after");
  std::vector<WalCommit> commits;
  absl::Status followed = wal_capture_->OnWrite(offset, bytes, &commits);
  // The process may have been stopped since the lease was looked at (R2): the transaction is in doubt then.
  const bool commit = !commits.empty();
  const bool too_late = commit && Fenced();
  Enqueue(std::move(commits));
  if (commit) Failpoint("commit.wal_capture.after");
  return followed.ok() && too_late ? RefuseFenced() : followed;
}

// All that the WAL holds is in the log and, as SQLite does this only then, in the database file.
absl::Status DatabaseCapture::RestartWal() {
  ECHOFS_RETURN_IF_ERROR(DrainLocked());
  absl::MutexLock logged(&logged_);
  ECHOFS_RETURN_IF_ERROR(CheckCheckpointed());
  ForgetWal();
  return absl::OkStatus();
}

void DatabaseCapture::ForgetWal() {
  in_doubt_ = false;
  wal_pages_.clear();
  wal_hashes_.clear();
}

// What the WAL took from the history is taken back there too. If the node ends before the file is gone, the commits are
// found in it again.
absl::Status DatabaseCapture::DiscardWal() {
  ECHOFS_RETURN_IF_ERROR(DrainLocked());
  absl::MutexLock logged(&logged_);
  ECHOFS_ASSIGN_OR_RETURN(const std::optional<PageNumber> missing, PageNotInFile());
  if (missing) {
    for (const auto& [page, newest] : wal_pages_) {
      if (page <= position_.page_count) dirty_[page] = newest.hash;
    }
    const absl::Status recorded = RecordMainFile(/*whole=*/false);
    dirty_.clear();
    ECHOFS_RETURN_IF_ERROR(recorded);
    spdlog::warn(
        "{}: its WAL was removed, or overwritten by a program that is not SQLite, with commits "
        "that the database file lacks; they are undone",
        name_);
  }
  ForgetWal();
  return absl::OkStatus();
}

absl::Status DatabaseCapture::CheckCheckpointed() {
  ECHOFS_ASSIGN_OR_RETURN(const std::optional<PageNumber> page, PageNotInFile());
  if (!page) return absl::OkStatus();
  in_doubt_ = true;
  absl::Status refused = absl::FailedPreconditionError(fmt::format(
      "a new start of the WAL would drop a committed transaction: page {} is not in the database "
      "file",
      *page));
  spdlog::error("{}: {}; refused", name_, std::string(refused.message()));
  return refused;
}

absl::StatusOr<std::optional<PageNumber>> DatabaseCapture::PageNotInFile() {
  std::vector<std::uint8_t> content(position_.page_size);
  for (auto& [page, newest] : wal_pages_) {
    if (page > position_.page_count || (newest.in_file && !in_doubt_)) continue;
    ECHOFS_RETURN_IF_ERROR(
        ReadZeroFilled(*main_, std::uint64_t{page - 1} * position_.page_size, content));
    if (PageHash(page, content) != newest.hash) return page;
    newest.in_file = true;
  }
  return std::nullopt;
}

void DatabaseCapture::NoteCheckpoint(std::uint64_t offset, ByteView bytes, bool written) {
  const std::uint32_t page_size = position_.page_size;
  while (!bytes.empty()) {
    const std::size_t size = std::min<std::uint64_t>(bytes.size(), page_size - offset % page_size);
    const auto page = static_cast<PageNumber>(offset / page_size + 1);
    if (const auto it = wal_pages_.find(page); it != wal_pages_.end()) {
      it->second.in_file =
          written && size == page_size && PageHash(page, bytes.first(size)) == it->second.hash;
    }
    offset += size;
    bytes = bytes.subspan(size);
  }
}

bool DatabaseCapture::HasBytesBehindPartOfFrame(std::uint64_t offset, std::uint64_t size) {
  absl::MutexLock files(&files_);
  if (!wal_capture_ || !wal_capture_->header() || offset < sqlite::kWalHeaderSize) return false;
  const std::uint64_t frame = wal_capture_->header()->page_size + sqlite::kFrameHeaderSize;
  if ((offset - sqlite::kWalHeaderSize) % frame <= sqlite::kFrameHeaderSize) return false;
  const absl::StatusOr<std::uint64_t> file_size = wal_->Size();
  if (!file_size.ok()) return false;
  if (*file_size >= offset + size) return true;
  return *file_size <= offset && offset >= kWalGrownFrom &&
         wal_->Truncate(offset + kWalGrownBy).ok();
}

absl::StatusOr<LogIndex> DatabaseCapture::CommitsToAcknowledge() {
  absl::MutexLock files(&files_);
  if (!context_.acknowledged || !is_database_) return LogIndex{};
  ECHOFS_RETURN_IF_ERROR(DrainLocked());
  absl::MutexLock logged(&logged_);
  return position_.index;
}

void DatabaseCapture::SetInDoubt() {
  absl::MutexLock files(&files_);
  in_doubt_ = true;
}

bool DatabaseCapture::LogPending() {
  const WalCommit* commit = nullptr;
  {
    absl::MutexLock files(&files_);
    if (pending_.empty()) return new_database_due_ && LogNewDatabase().ok();
    commit = &pending_.front();  // stays valid: only this thread removes the front
  }
  absl::Status status;
  {
    absl::MutexLock logged(&logged_);
    Failpoint("commit.wal_log.before");
    status = RecordWalCommit(*commit);
  }
  Failpoint("commit.wal_log.after");
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
  return !pending_.empty() || new_database_due_;
}

absl::Status DatabaseCapture::CheckCheckpoint(std::uint64_t offset, ByteView bytes) {
  const std::uint32_t page_size = position_.page_size;
  const std::uint64_t committed = std::uint64_t{position_.page_count} * page_size;
  std::vector<std::uint8_t> present;
  while (!bytes.empty() && offset < committed) {
    const std::size_t size = std::min<std::uint64_t>(bytes.size(), page_size - offset % page_size);
    const ByteView part = bytes.first(size);
    const auto page = static_cast<PageNumber>(offset / page_size + 1);
    bool logged = size == page_size && wal_hashes_.contains(PageHash(page, part));
    if (size != page_size) {
      ECHOFS_ASSIGN_OR_RETURN(logged, IsPartOfNewest(page, offset % page_size, part));
    }
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

absl::Status DatabaseCapture::CheckCheckpointTruncation(std::uint64_t size) {
  std::vector<std::uint8_t> content(position_.page_size);
  for (auto page = static_cast<PageNumber>(size / position_.page_size + 1);
       page <= position_.page_count; ++page) {
    if (wal_pages_.contains(page)) continue;
    ECHOFS_RETURN_IF_ERROR(
        ReadZeroFilled(*main_, std::uint64_t{page - 1} * position_.page_size, content));
    if (std::any_of(content.begin(), content.end(), [](std::uint8_t byte) { return byte != 0; })) {
      return Refuse(fmt::format(
          "cutting off page {} was refused: it would not be replicated, and the database is in WAL "
          "mode. The application goes from there to PRAGMA journal_mode=OFF or MEMORY, or changes "
          "the file without SQLite",
          page));
    }
  }
  in_doubt_ = true;  // the WAL may not go before a checkpoint has put these pages back
  return absl::OkStatus();
}

// The kernel may bring a write in pieces, when the application's memory has to be read in first.
absl::StatusOr<bool> DatabaseCapture::IsPartOfNewest(PageNumber page, std::uint64_t at,
                                                     ByteView part) {
  const auto newest = wal_pages_.find(page);
  if (newest == wal_pages_.end()) return false;
  std::vector<std::uint8_t> content(position_.page_size);
  ECHOFS_RETURN_IF_ERROR(
      WalPages(wal_.get(), main_.get(), position_.page_size, {{page, newest->second.frame}})
          .Read(0, content));
  return std::equal(part.begin(), part.end(), content.begin() + static_cast<std::ptrdiff_t>(at));
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
  context_.metrics->commit.Observe(absl::Now() - commit.captured);
  return absl::OkStatus();
}

bool DatabaseCapture::HasCommitUnknownTo(ByteView shm) {
  // A new start of the WAL adds 1 to salt-1, first in the wal-index. When its writer ends there, others may do
  // it again before one of them writes the WAL's header.
  constexpr std::uint32_t kRestartsMax = 4096;
  const sqlite::WalIndexSummary index = sqlite::ParseWalIndexSummary(shm);
  absl::MutexLock files(&files_);
  if (!is_database_ || !wal_capture_ || !index.initialized) return false;
  if (absl::Status status = CatchUpWal(); !status.ok()) {
    spdlog::error("{}: the WAL cannot be read: {}", name_, std::string(status.message()));
    return true;  // there may be one; a wal-index that is recovered in vain does no harm
  }
  if (!wal_capture_->header()) return false;
  const sqlite::WalHeader& wal = *wal_capture_->header();
  if (index.salt1 == wal.salt1 && index.salt2 == wal.salt2) {
    return index.max_frame < wal_capture_->captured_frames();
  }
  // The WAL is about to be started anew, and its frames are all in the database, or should be. Or the other way round:
  // this WAL is the first one of its kind, with random salts, and the wal-index has not heard of it.
  if (wal_capture_->captured_frames() == 0 || index.max_frame != 0) return false;
  const std::uint32_t restarts = index.salt1 - wal.salt1;
  if (restarts == 0 || restarts > kRestartsMax || !pending_.empty()) return true;
  absl::MutexLock logged(&logged_);
  const absl::StatusOr<std::optional<PageNumber>> missing = PageNotInFile();
  return !missing.ok() || missing->has_value();
}

}  // namespace echofs::fs
