#include "fs/database_capture.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <utility>

#include "absl/time/clock.h"
#include "fs/capture_pages.h"
#include "replication/failpoint.h"
#include "replication/status_macros.h"

namespace echofs::fs {
namespace {

// A rollback-mode commit of more pages is recorded where waiting is allowed.
constexpr std::size_t kInlineCommitPagesMax = 64;

constexpr std::string_view kUnjournaledWrite =
    "a write without a journal was refused: it could not be replicated. The application uses "
    "PRAGMA journal_mode=OFF or MEMORY (or overwrites the file); set PRAGMA journal_mode to "
    "DELETE, TRUNCATE or PERSIST, and from there to WAL if wanted";

bool SameFile(const std::shared_ptr<File>& a, const std::shared_ptr<File>& b) {
  if (!a || !b || a == b) return a == b;
  struct stat first;
  struct stat second;
  return fstat(a->Descriptor(), &first) == 0 && fstat(b->Descriptor(), &second) == 0 &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

}  // namespace

DatabaseCapture::DatabaseCapture(std::string name, DatabasePosition position,
                                 CaptureContext context)
    : name_(std::move(name)), context_(std::move(context)), position_(std::move(position)) {
  position_.name = name_;
  is_database_ = position_.txid != Txid{} && !position_.dropped;
}

absl::Status DatabaseCapture::SetFile(FileRole role, std::shared_ptr<File> file) {
  absl::MutexLock files(&files_);
  switch (role) {
    case FileRole::kMain:
      if (SameFile(main_, file)) return absl::OkStatus();
      main_ = std::move(file);
      return LoadMain();
    case FileRole::kJournal: {
      if (SameFile(journal_, file)) return absl::OkStatus();
      std::array<std::uint8_t, 8> magic{};
      ECHOFS_RETURN_IF_ERROR(ReadZeroFilled(*file, 0, magic));
      journal_ = std::move(file);
      journal_unread_ = false;
      journal_valid_ = sqlite::HasJournalMagic(magic);
      return absl::OkStatus();
    }
    case FileRole::kWal:
      return SameFile(wal_, file) ? absl::OkStatus() : SetWal(std::move(file));
    default:
      return absl::OkStatus();
  }
}

absl::StatusOr<sqlite::DatabaseHeader> DatabaseCapture::ReadMainHeader() {
  std::array<std::uint8_t, sqlite::kDatabaseHeaderSize> bytes;
  ECHOFS_ASSIGN_OR_RETURN(const std::size_t n, main_->ReadAt(0, bytes));
  std::optional<sqlite::DatabaseHeader> header =
      sqlite::ParseDatabaseHeader(ByteView(bytes).first(n));
  if (!header) {
    return absl::FailedPreconditionError(
        fmt::format("{} does not start with a valid SQLite header", name_));
  }
  if (!header->page_count_valid) {
    ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t size, main_->Size());
    header->page_count = static_cast<std::uint32_t>(size / header->page_size);
  }
  return *header;
}

absl::Status DatabaseCapture::LoadMain() {
  absl::StatusOr<sqlite::DatabaseHeader> header = ReadMainHeader();
  if (absl::IsFailedPrecondition(header.status()))
    return absl::OkStatus();  // no database, or not yet
  if (!header.ok()) {
    main_.reset();
    return header.status();
  }
  is_database_ = true;
  wal_mode_ = header->wal_mode;
  return absl::OkStatus();
}

bool DatabaseCapture::NeverCommitted() const {
  return position_.txid == Txid{} || position_.dropped;
}

bool DatabaseCapture::WriteMayWait(FileRole role, std::uint64_t offset, std::uint64_t size) {
  absl::MutexLock files(&files_);
  switch (role) {
    case FileRole::kMain: {
      if (journal_valid_ || !pending_.empty()) return !journal_valid_;
      if (!wal_mode_) return false;
      absl::MutexLock logged(&logged_);
      return context_.log->synced_index() < position_.index;
    }
    case FileRole::kWal:
      return (offset < sqlite::kWalHeaderSize && !pending_.empty()) ||
             pending_.size() >= kPendingCommitsMax;
    case FileRole::kJournal:
      return offset == 0 && size >= sqlite::kJournalHeaderSize && journal_valid_ &&
             (application_syncs_ || context_.acknowledged_always ||
              dirty_.size() > kInlineCommitPagesMax);
    default:
      return false;
  }
}

bool DatabaseCapture::EndOfJournalMayWait() {
  absl::MutexLock files(&files_);
  return journal_valid_ && (application_syncs_ || context_.acknowledged_always ||
                            dirty_.size() > kInlineCommitPagesMax);
}

absl::Status DatabaseCapture::Write(FileRole role, std::uint64_t offset, ByteView bytes) {
  absl::MutexLock files(&files_);
  switch (role) {
    case FileRole::kMain:
      return WriteMain(offset, bytes);
    case FileRole::kWal:
      return WriteWal(offset, bytes);
    case FileRole::kJournal:
      return WriteJournal(offset, bytes);
    default:
      return absl::InternalError("not a file that is captured");
  }
}

absl::Status DatabaseCapture::WriteMain(std::uint64_t offset, ByteView bytes) {
  if (bytes.empty()) return absl::OkStatus();
  if (!is_database_) {
    ECHOFS_RETURN_IF_ERROR(main_->WriteAt(offset, bytes));
    if (offset != 0 || !sqlite::HasDatabaseMagic(bytes)) return absl::OkStatus();
    if (wal_capture_) ECHOFS_RETURN_IF_ERROR(LoadWal());
    is_database_ = true;
    return absl::OkStatus();
  }
  ECHOFS_RETURN_IF_ERROR(LookAtJournal());
  if (!journal_valid_) ECHOFS_RETURN_IF_ERROR(DrainLocked());
  absl::MutexLock logged(&logged_);
  if (journal_valid_) ECHOFS_RETURN_IF_ERROR(CheckLogRoom(offset, bytes));
  if (NeverCommitted()) {
    new_database_due_ = false;  // it comes to an end again, or its transaction does
    return main_->WriteAt(offset, bytes);
  }
  if (journal_valid_) {
    const std::uint64_t end = offset + bytes.size();
    ECHOFS_RETURN_IF_ERROR(
        RememberPages(static_cast<PageNumber>(offset / position_.page_size + 1),
                      static_cast<PageNumber>((end - 1) / position_.page_size + 1)));
    ECHOFS_RETURN_IF_ERROR(main_->WriteAt(offset, bytes));
    Failpoint("commit.page_write.after");
    return absl::OkStatus();
  }
  if (wal_mode_) {
    ECHOFS_RETURN_IF_ERROR(CheckCheckpoint(offset, bytes));
    ECHOFS_RETURN_IF_ERROR(context_.log->Sync(position_.index));
    absl::Status written = main_->WriteAt(offset, bytes);
    NoteCheckpoint(offset, bytes, written.ok());
    Failpoint("checkpoint.page_write.after");
    return written;
  }
  // Behind the committed pages is nothing of the database. SQLite makes room there before it has a journal
  // (SQLITE_FCNTL_SIZE_HINT); what comes to count is taken when a commit grows the database.
  if (offset >= std::uint64_t{position_.page_count} * position_.page_size) {
    return main_->WriteAt(offset, bytes);
  }
  return Refuse(kUnjournaledWrite);
}

absl::Status DatabaseCapture::Refuse(std::string_view what) {
  if (!refusal_logged_) {
    refusal_logged_ = true;
    spdlog::error("{}: {}", name_, what);
  }
  return absl::FailedPreconditionError(fmt::format("{}: {}", name_, what));
}

absl::Status DatabaseCapture::Truncate(FileRole role, std::uint64_t size) {
  absl::MutexLock files(&files_);
  switch (role) {
    case FileRole::kMain:
      return TruncateMain(size);
    case FileRole::kWal: {
      if (!is_database_) return wal_->Truncate(size);
      ECHOFS_RETURN_IF_ERROR(CatchUpWal());
      if (!wal_capture_->KeepsCaptured(size)) ECHOFS_RETURN_IF_ERROR(RestartWal());
      Failpoint("checkpoint.wal_truncate.before");
      ECHOFS_RETURN_IF_ERROR(wal_->Truncate(size));
      Failpoint("checkpoint.wal_truncate.after");
      wal_capture_->OnTruncate(size);
      return absl::OkStatus();
    }
    case FileRole::kJournal: {
      ECHOFS_RETURN_IF_ERROR(LookAtJournal());
      const bool ends = journal_valid_ && size < sqlite::kJournalHeaderSize;
      if (ends) ECHOFS_RETURN_IF_ERROR(EndTransaction());
      absl::Status truncated = journal_->Truncate(size);
      journal_unread_ = !truncated.ok();
      if (ends && truncated.ok()) ForgetTransaction();
      return truncated;
    }
    default:
      return absl::InternalError("not a file that is captured");
  }
}

absl::Status DatabaseCapture::TruncateMain(std::uint64_t size) {
  if (!is_database_) return main_->Truncate(size);
  ECHOFS_RETURN_IF_ERROR(LookAtJournal());
  if (!journal_valid_) ECHOFS_RETURN_IF_ERROR(DrainLocked());
  absl::MutexLock logged(&logged_);
  if (NeverCommitted()) {
    new_database_due_ = false;
    return main_->Truncate(size);
  }
  const std::uint64_t committed = std::uint64_t{position_.page_count} * position_.page_size;
  if (size < committed && wal_mode_ && !journal_valid_) {
    ECHOFS_RETURN_IF_ERROR(CheckCheckpointTruncation(size));
  } else if (size < committed) {
    if (!journal_valid_) return Refuse(kUnjournaledWrite);
    ECHOFS_RETURN_IF_ERROR(RememberPages(static_cast<PageNumber>(size / position_.page_size + 1),
                                         position_.page_count));
  }
  if (wal_mode_ && !journal_valid_) ECHOFS_RETURN_IF_ERROR(context_.log->Sync(position_.index));
  return main_->Truncate(size);
}

absl::Status DatabaseCapture::Extend(FileRole role, std::uint64_t size) {
  absl::MutexLock files(&files_);
  File* const file = role == FileRole::kMain  ? main_.get()
                     : role == FileRole::kWal ? wal_.get()
                                              : journal_.get();
  ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t now, file->Size());
  return size > now ? file->Truncate(size) : absl::OkStatus();
}

bool DatabaseCapture::PutOffSync(FileRole role) {
  absl::MutexLock files(&files_);
  if (role != FileRole::kMain || !MainSyncCanBePutOff()) return false;
  application_syncs_ = true;
  main_sync_due_ = true;
  return true;
}

absl::StatusOr<LogIndex> DatabaseCapture::Sync(FileRole role) {
  std::shared_ptr<File> file;
  LogIndex index;
  {
    absl::MutexLock files(&files_);
    file = role == FileRole::kMain ? main_ : role == FileRole::kWal ? wal_ : journal_;
    if (role != FileRole::kWal) application_syncs_ = true;
    if (role == FileRole::kMain) main_synced_at_ = absl::Now();
    if (role == FileRole::kMain && is_database_ && wal_mode_) {
      ECHOFS_RETURN_IF_ERROR(DrainLocked());
      absl::MutexLock logged(&logged_);
      index = position_.index;
    }
  }
  // After this sync SQLite may overwrite the only other copy of what the WAL holds (C5).
  if (index != LogIndex{}) {
    ECHOFS_RETURN_IF_ERROR(context_.log->Sync(index));
    Failpoint("checkpoint.log_sync.after");
  }
  if (role == FileRole::kWal) Failpoint("commit.wal_sync.before");
  absl::Status synced = file->Sync();
  if (index != LogIndex{}) Failpoint("checkpoint.main_sync.after");
  if (role == FileRole::kWal) Failpoint("commit.wal_sync.after");
  if (role != FileRole::kWal) return synced.ok() ? absl::StatusOr<LogIndex>(LogIndex{}) : synced;
  absl::StatusOr<LogIndex> commits = synced.ok() ? CommitsToAcknowledge() : synced;
  if (!commits.ok()) SetInDoubt();
  return commits;
}

absl::Status DatabaseCapture::Remove(FileRole role, const std::function<absl::Status()>& unlink,
                                     bool abandoned) {
  absl::MutexLock files(&files_);
  switch (role) {
    case FileRole::kJournal: {
      ECHOFS_RETURN_IF_ERROR(LookAtJournal());
      const bool ends = journal_valid_;
      if (ends) ECHOFS_RETURN_IF_ERROR(EndTransaction());
      ECHOFS_RETURN_IF_ERROR(unlink());
      if (ends) ForgetTransaction();
      journal_.reset();
      return absl::OkStatus();
    }
    case FileRole::kWal: {
      if (is_database_) {
        ECHOFS_RETURN_IF_ERROR(CatchUpWal());
        ECHOFS_RETURN_IF_ERROR(abandoned ? DiscardWal() : RestartWal());
      }
      Failpoint("checkpoint.wal_remove.before");
      absl::Status removed = unlink();
      Failpoint("checkpoint.wal_remove.after");
      if (!removed.ok()) {
        // It is there still, with its commits.
        if (is_database_ && wal_capture_) ECHOFS_RETURN_IF_ERROR(LoadWal());
        return removed;
      }
      absl::MutexLock logged(&logged_);
      wal_capture_.reset();
      wal_.reset();
      return absl::OkStatus();
    }
    case FileRole::kMain:
      return RemoveMain(unlink);
    default:
      return unlink();
  }
}

absl::Status DatabaseCapture::RemoveMain(const std::function<absl::Status()>& unlink) {
  if (Fenced()) return RefuseFenced();
  ECHOFS_RETURN_IF_ERROR(DrainLocked());
  absl::MutexLock logged(&logged_);
  if (is_database_ && !NeverCommitted()) {
    ECHOFS_ASSIGN_OR_RETURN(position_, RecordDrop(*context_.log, context_.term(), position_));
    ECHOFS_RETURN_IF_ERROR(context_.log->Sync(position_.index));
    Failpoint("drop.log.after");
  }
  ECHOFS_RETURN_IF_ERROR(unlink());  // else it is a database still, with its first commit to come
  Failpoint("drop.unlink.after");
  is_database_ = false;
  new_database_due_ = false;
  return absl::OkStatus();
}

absl::Status DatabaseCapture::Fence() {
  absl::MutexLock files(&files_);
  fenced_ = true;
  return DrainLocked();
}

void DatabaseCapture::Unfence() {
  absl::MutexLock files(&files_);
  fenced_ = false;
}

absl::Status DatabaseCapture::RefuseFenced() const {
  const std::string_view why = fenced_ ? "this node is about to stop being the primary"
                                       : "this node cannot prove that it is the primary still, its "
                                         "lease ran out";
  return absl::InternalError(fmt::format("{}: {}; nothing is committed here", name_, why));
}

bool DatabaseCapture::is_database() {
  absl::MutexLock files(&files_);
  return is_database_;
}

DatabasePosition DatabaseCapture::position() {
  absl::MutexLock logged(&logged_);
  return position_;
}

bool DatabaseCapture::wal_mode() {
  absl::MutexLock files(&files_);
  return wal_mode_;
}

absl::StatusOr<PageRun> DatabaseCapture::ReadPages(PageNumber first, std::uint32_t count) {
  absl::MutexLock files(&files_);
  ECHOFS_RETURN_IF_ERROR(LookAtJournal());
  absl::MutexLock logged(&logged_);
  if (NeverCommitted()) {
    return absl::NotFoundError(fmt::format("{} has no committed transaction", name_));
  }
  PageRun run;
  run.position = position_;
  run.first = first;
  if (first > position_.page_count) return run;
  count = std::min(count, position_.page_count - first + 1);
  run.pages.resize(std::size_t{count} * position_.page_size);
  for (std::uint32_t i = 0; i < count; ++i) {
    const PageNumber page = first + i;
    if (page == LockPage(position_.page_size)) continue;
    if (dirty_.contains(page)) {
      return absl::UnavailableError(fmt::format("page {} is in a transaction", page));
    }
    const auto it = wal_pages_.find(page);
    ECHOFS_RETURN_IF_ERROR(
        WalPages(wal_.get(), main_.get(), position_.page_size,
                 {{page, it == wal_pages_.end() ? 0 : it->second.frame}})
            .Read(0, MutableByteView(run.pages).subspan(std::size_t{i} * position_.page_size,
                                                        position_.page_size)));
  }
  return run;
}

}  // namespace echofs::fs
