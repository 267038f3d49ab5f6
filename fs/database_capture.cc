#include "fs/database_capture.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "fs/capture_pages.h"
#include "replication/digest.h"
#include "replication/status_macros.h"

namespace echofs::fs {
namespace {

// Captured commits of one database that may wait for the log; then writers wait too.
constexpr std::size_t kPendingCommitsMax = 4096;
// A rollback-mode commit of more pages is recorded where waiting is allowed.
constexpr std::size_t kInlineCommitPagesMax = 64;

FileAttributes AttributesOf(const File& file) {
  struct stat st;
  FileAttributes attributes;
  if (file.Descriptor() >= 0 && fstat(file.Descriptor(), &st) == 0) {
    attributes.mode = st.st_mode & 07777;
    attributes.uid = st.st_uid;
    attributes.gid = st.st_gid;
  }
  return attributes;
}

bool SameFile(const std::shared_ptr<File>& a, const std::shared_ptr<File>& b) {
  if (!a || !b || a == b) return a == b;
  struct stat first;
  struct stat second;
  return fstat(a->Descriptor(), &first) == 0 && fstat(b->Descriptor(), &second) == 0 &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

std::vector<PageNumber> AllPages(std::uint32_t page_count, std::uint32_t page_size) {
  std::vector<PageNumber> numbers;
  numbers.reserve(page_count);
  for (PageNumber page = 1; page <= page_count; ++page) {
    if (page != LockPage(page_size)) numbers.push_back(page);
  }
  return numbers;
}

}  // namespace

DatabaseCapture::DatabaseCapture(std::string name, DatabasePosition position, CaptureContext context)
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
      journal_ = std::move(file);
      std::array<std::uint8_t, 8> magic{};
      ECHOFS_RETURN_IF_ERROR(ReadZeroFilled(*journal_, 0, magic));
      journal_valid_ = sqlite::HasJournalMagic(magic);
      return absl::OkStatus();
    }
    case FileRole::kWal: {
      if (SameFile(wal_, file)) return absl::OkStatus();
      {
        absl::MutexLock logged(&logged_);  // LogPending reads wal_ under it
        wal_ = std::move(file);
        wal_capture_ = std::make_unique<WalCapture>(wal_.get());
      }
      return is_database_ ? LoadWal() : absl::OkStatus();
    }
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
  if (!header.ok()) return absl::OkStatus();  // not a database, or not yet
  is_database_ = true;
  wal_mode_ = header->wal_mode;
  return absl::OkStatus();
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
        wal_pages_[frame.page] = {frame.frame, PageHash(frame.page, page)};
      }
      ++known;
    }
    commits.erase(commits.begin(), commits.begin() + static_cast<std::ptrdiff_t>(known));
  }
  if (!commits.empty()) {
    spdlog::info("{}: {} committed transactions in the WAL are not in the log yet; taking them", name_,
                 commits.size());
  }
  Enqueue(std::move(commits));
  return absl::OkStatus();
}

bool DatabaseCapture::NeverCommitted() const {
  return position_.txid == Txid{} || position_.dropped;
}

void DatabaseCapture::Enqueue(std::vector<WalCommit> commits) {
  if (commits.empty()) return;
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

bool DatabaseCapture::WriteMayWait(FileRole role, std::uint64_t offset, std::uint64_t size) {
  absl::MutexLock files(&files_);
  switch (role) {
    case FileRole::kMain:
      return !journal_valid_ && !pending_.empty();
    case FileRole::kWal:
      return (offset < sqlite::kWalHeaderSize && !pending_.empty()) ||
             pending_.size() >= kPendingCommitsMax;
    case FileRole::kJournal:
      return offset == 0 && size >= sqlite::kJournalHeaderSize && journal_valid_ &&
             (application_syncs_ || dirty_.size() > kInlineCommitPagesMax);
    default:
      return false;
  }
}

bool DatabaseCapture::EndOfJournalMayWait() {
  absl::MutexLock files(&files_);
  return journal_valid_ && (application_syncs_ || dirty_.size() > kInlineCommitPagesMax);
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
    is_database_ = true;
    return wal_capture_ ? LoadWal() : absl::OkStatus();
  }
  if (!journal_valid_) ECHOFS_RETURN_IF_ERROR(DrainLocked());
  absl::MutexLock logged(&logged_);
  if (NeverCommitted()) return main_->WriteAt(offset, bytes);
  if (journal_valid_) {
    const std::uint64_t end = offset + bytes.size();
    ECHOFS_RETURN_IF_ERROR(RememberPages(
        static_cast<PageNumber>(offset / position_.page_size + 1),
        static_cast<PageNumber>((end - 1) / position_.page_size + 1)));
    return main_->WriteAt(offset, bytes);
  }
  if (wal_mode_) return main_->WriteAt(offset, bytes);  // a checkpoint (C5)
  // Behind the committed pages is nothing of the database. SQLite makes room there before it has a journal
  // (SQLITE_FCNTL_SIZE_HINT); what comes to count is taken when a commit grows the database.
  if (offset >= std::uint64_t{position_.page_count} * position_.page_size) {
    return main_->WriteAt(offset, bytes);
  }
  return RefuseUnjournaledWrite();
}

absl::Status DatabaseCapture::RefuseUnjournaledWrite() {
  if (!refusal_logged_) {
    refusal_logged_ = true;
    spdlog::error(
        "{}: a write without a journal was refused: it could not be replicated. The application uses PRAGMA "
        "journal_mode=OFF or MEMORY (or overwrites the file); set PRAGMA journal_mode to WAL, DELETE, "
        "TRUNCATE or PERSIST",
        name_);
  }
  return absl::FailedPreconditionError(fmt::format("{}: write without a journal", name_));
}

absl::Status DatabaseCapture::RememberPages(PageNumber first, PageNumber last) {
  std::vector<std::uint8_t> page(position_.page_size);
  for (PageNumber number = first; number <= last; ++number) {
    if (number == LockPage(position_.page_size) || dirty_.contains(number)) continue;
    std::uint64_t hash = 0;
    if (number <= position_.page_count) {
      ECHOFS_RETURN_IF_ERROR(
          ReadZeroFilled(*main_, std::uint64_t{number - 1} * position_.page_size, page));
      hash = PageHash(number, page);
    }
    dirty_.emplace(number, hash);
  }
  return absl::OkStatus();
}

absl::Status DatabaseCapture::WriteWal(std::uint64_t offset, ByteView bytes) {
  if (!is_database_) return wal_->WriteAt(offset, bytes);
  if (wal_capture_->RestartsWal(offset, bytes)) {
    ECHOFS_RETURN_IF_ERROR(RestartWal());
  } else if (pending_.size() >= kPendingCommitsMax || !log_failure_.ok()) {
    ECHOFS_RETURN_IF_ERROR(DrainLocked());
  }
  if (absl::Status check = wal_capture_->CheckWrite(offset, bytes); !check.ok()) {
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
  return absl::OkStatus();
}

absl::Status DatabaseCapture::WriteJournal(std::uint64_t offset, ByteView bytes) {
  const bool ends = journal_valid_ && offset == 0 && bytes.size() >= 8 &&
                    !sqlite::HasJournalMagic(bytes);
  if (ends) ECHOFS_RETURN_IF_ERROR(EndTransaction());
  ECHOFS_RETURN_IF_ERROR(journal_->WriteAt(offset, bytes));
  if (ends) ForgetTransaction();
  if (offset < 8) {
    std::array<std::uint8_t, 8> magic{};
    ECHOFS_RETURN_IF_ERROR(ReadZeroFilled(*journal_, 0, magic));
    journal_valid_ = sqlite::HasJournalMagic(magic);
  }
  return absl::OkStatus();
}

absl::Status DatabaseCapture::Truncate(FileRole role, std::uint64_t size) {
  absl::MutexLock files(&files_);
  switch (role) {
    case FileRole::kMain:
      return TruncateMain(size);
    case FileRole::kWal: {
      if (!is_database_) return wal_->Truncate(size);
      if (!wal_capture_->KeepsCaptured(size)) ECHOFS_RETURN_IF_ERROR(RestartWal());
      ECHOFS_RETURN_IF_ERROR(wal_->Truncate(size));
      wal_capture_->OnTruncate(size);
      return absl::OkStatus();
    }
    case FileRole::kJournal: {
      const bool ends = journal_valid_ && size < sqlite::kJournalHeaderSize;
      if (ends) ECHOFS_RETURN_IF_ERROR(EndTransaction());
      ECHOFS_RETURN_IF_ERROR(journal_->Truncate(size));
      if (ends) ForgetTransaction();
      return absl::OkStatus();
    }
    default:
      return absl::InternalError("not a file that is captured");
  }
}

absl::Status DatabaseCapture::TruncateMain(std::uint64_t size) {
  if (!is_database_) return main_->Truncate(size);
  if (!journal_valid_) ECHOFS_RETURN_IF_ERROR(DrainLocked());
  absl::MutexLock logged(&logged_);
  if (NeverCommitted()) return main_->Truncate(size);
  const std::uint64_t committed = std::uint64_t{position_.page_count} * position_.page_size;
  if (size < committed) {
    if (!journal_valid_) return RefuseUnjournaledWrite();
    ECHOFS_RETURN_IF_ERROR(RememberPages(static_cast<PageNumber>(size / position_.page_size + 1),
                                         position_.page_count));
  }
  return main_->Truncate(size);
}

absl::Status DatabaseCapture::Extend(FileRole role, std::uint64_t size) {
  absl::MutexLock files(&files_);
  File* const file = role == FileRole::kMain ? main_.get()
                     : role == FileRole::kWal ? wal_.get()
                                              : journal_.get();
  ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t now, file->Size());
  return size > now ? file->Truncate(size) : absl::OkStatus();
}

absl::Status DatabaseCapture::Sync(FileRole role) {
  std::shared_ptr<File> file;
  LogIndex index;
  {
    absl::MutexLock files(&files_);
    file = role == FileRole::kMain ? main_ : role == FileRole::kWal ? wal_ : journal_;
    if (role != FileRole::kWal) application_syncs_ = true;
    if (role == FileRole::kMain && is_database_ && wal_mode_) {
      ECHOFS_RETURN_IF_ERROR(DrainLocked());
      absl::MutexLock logged(&logged_);
      index = position_.index;
    }
  }
  // After this sync SQLite may overwrite the only other copy of what the WAL holds (C5).
  if (index != LogIndex{}) ECHOFS_RETURN_IF_ERROR(context_.log->Sync(index));
  return file->Sync();
}

absl::Status DatabaseCapture::Remove(FileRole role, const std::function<absl::Status()>& unlink) {
  absl::MutexLock files(&files_);
  switch (role) {
    case FileRole::kJournal: {
      const bool ends = journal_valid_;
      if (ends) ECHOFS_RETURN_IF_ERROR(EndTransaction());
      ECHOFS_RETURN_IF_ERROR(unlink());
      if (ends) ForgetTransaction();
      journal_.reset();
      return absl::OkStatus();
    }
    case FileRole::kWal: {
      if (is_database_) ECHOFS_RETURN_IF_ERROR(RestartWal());
      ECHOFS_RETURN_IF_ERROR(unlink());
      absl::MutexLock logged(&logged_);
      wal_capture_.reset();
      wal_.reset();
      return absl::OkStatus();
    }
    case FileRole::kMain: {
      ECHOFS_RETURN_IF_ERROR(DrainLocked());
      absl::MutexLock logged(&logged_);
      if (is_database_ && !NeverCommitted()) {
        LogEntry entry;
        entry.kind = EntryKind::kDrop;
        entry.term = context_.term();
        entry.database = name_;
        entry.txid = position_.txid.Next();
        entry.digest_before = position_.digest;
        entry.timestamp_ms = absl::ToUnixMillis(absl::Now());
        ECHOFS_ASSIGN_OR_RETURN(position_.index, context_.log->Append(entry, {}));
        position_.txid = entry.txid;
        position_.digest = 0;
        position_.page_count = 0;
        position_.dropped = true;
        ECHOFS_RETURN_IF_ERROR(context_.log->Sync(position_.index));
      }
      is_database_ = false;
      return unlink();
    }
    default:
      return unlink();
  }
}

void DatabaseCapture::ForgetTransaction() {
  dirty_.clear();
  journal_valid_ = false;
  application_syncs_ = false;
}

// C4: the log entry is written, and synced if the application syncs, before the journal goes.
absl::Status DatabaseCapture::EndTransaction() {
  if (!is_database_) return absl::OkStatus();
  ECHOFS_RETURN_IF_ERROR(DrainLocked());
  absl::StatusOr<sqlite::DatabaseHeader> header = ReadMainHeader();
  absl::MutexLock logged(&logged_);
  if (NeverCommitted()) {
    if (!header.ok()) return absl::OkStatus();  // the creation was rolled back
    ECHOFS_RETURN_IF_ERROR(RecordMainFile(/*whole=*/false));
  } else {
    if (!header.ok()) return header.status();
    const bool size_changed =
        header->page_count != position_.page_count || header->page_size != position_.page_size;
    if (dirty_.empty() && !size_changed) return absl::OkStatus();
    ECHOFS_RETURN_IF_ERROR(RecordMainFile(/*whole=*/false));
  }
  wal_mode_ = header->wal_mode;
  if (application_syncs_) return context_.log->Sync(position_.index);
  return absl::OkStatus();
}

// Appends what differs between the main file and the position. The candidates are the dirty pages and those
// that the database has grown by; all pages when the page size is new.
absl::Status DatabaseCapture::RecordMainFile(bool whole) {
  ECHOFS_ASSIGN_OR_RETURN(const sqlite::DatabaseHeader header, ReadMainHeader());
  std::vector<PageNumber> numbers;
  if (whole || NeverCommitted() || header.page_size != position_.page_size) {
    numbers = AllPages(header.page_count, header.page_size);
  } else {
    for (const auto& [number, hash] : dirty_) {
      if (number <= header.page_count && number <= position_.page_count) numbers.push_back(number);
    }
    std::sort(numbers.begin(), numbers.end());
    for (PageNumber page = position_.page_count + 1; page <= header.page_count; ++page) {
      if (page != LockPage(header.page_size)) numbers.push_back(page);
    }
  }
  FilePages pages(main_.get(), header.page_size, numbers);
  CommitDraft draft;
  draft.page_size = header.page_size;
  draft.page_count = header.page_count;
  draft.attributes = AttributesOf(*main_);
  draft.replaces_all = whole;
  draft.pages = &pages;
  draft.old_hash = [this](PageNumber page)
                       ABSL_NO_THREAD_SAFETY_ANALYSIS -> absl::StatusOr<std::uint64_t> {
    const auto it = dirty_.find(page);
    if (it != dirty_.end()) return it->second;
    return OldHash(page);  // cut off without having been written: still there
  };
  ECHOFS_ASSIGN_OR_RETURN(std::optional<RecordedCommit> recorded,
                          RecordCommit(*context_.log, context_.term(), position_, draft));
  if (!recorded) return absl::OkStatus();
  position_ = std::move(recorded->position);
  // Should the journal's operation fail now, the transaction goes on from here.
  for (std::size_t i = 0; i < numbers.size(); ++i) dirty_[numbers[i]] = recorded->page_hashes[i];
  return absl::OkStatus();
}

absl::Status DatabaseCapture::TakeJournal(const JournalContent& content) {
  absl::MutexLock files(&files_);
  {
    absl::MutexLock logged(&logged_);
    std::vector<std::uint8_t> page(content.page_size);
    for (const auto& [number, offset] : content.pages) {
      ECHOFS_RETURN_IF_ERROR(ReadZeroFilled(*journal_, offset, page));
      dirty_[number] = PageHash(number, page);
    }
  }
  application_syncs_ = true;
  ECHOFS_RETURN_IF_ERROR(EndTransaction());
  ForgetTransaction();
  return absl::OkStatus();
}

absl::StatusOr<std::uint64_t> DatabaseCapture::ScanDigest() {
  constexpr std::uint32_t kPagesAtOnce = 64;
  std::uint64_t digest = 0;
  for (PageNumber first = 1;; first += kPagesAtOnce) {
    ECHOFS_ASSIGN_OR_RETURN(const PageRun run, ReadPages(first, kPagesAtOnce));
    if (run.pages.empty()) return digest;
    const std::uint32_t page_size = run.position.page_size;
    for (std::size_t i = 0; i * page_size < run.pages.size(); ++i) {
      const auto number = static_cast<PageNumber>(first + i);
      if (number == LockPage(page_size)) continue;
      digest += PageHash(number, ByteView(run.pages).subspan(i * page_size, page_size));
    }
  }
}

absl::Status DatabaseCapture::RecordWhole() {
  absl::MutexLock files(&files_);
  ECHOFS_RETURN_IF_ERROR(DrainLocked());
  absl::MutexLock logged(&logged_);
  ECHOFS_RETURN_IF_ERROR(RecordMainFile(/*whole=*/true));
  dirty_.clear();
  return absl::OkStatus();
}

absl::Status DatabaseCapture::LastWriterClosed() {
  absl::MutexLock files(&files_);
  if (!is_database_ || journal_valid_) return absl::OkStatus();
  ECHOFS_RETURN_IF_ERROR(DrainLocked());
  absl::StatusOr<sqlite::DatabaseHeader> header = ReadMainHeader();
  absl::MutexLock logged(&logged_);
  if (!NeverCommitted() || !header.ok() || header->page_count == 0) return absl::OkStatus();
  ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t size, main_->Size());
  if (size < std::uint64_t{header->page_count} * header->page_size) return absl::OkStatus();
  ECHOFS_RETURN_IF_ERROR(RecordMainFile(/*whole=*/false));
  dirty_.clear();
  wal_mode_ = header->wal_mode;
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
      spdlog::error("{}: a commit could not be put into the log, and will be tried again: {}", name_,
                    std::string(status.message()));
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
  const bool first_commit = NeverCommitted();
  const std::uint32_t old_count = first_commit ? 0 : position_.page_count;
  // Pages that the database has grown by without writing them, and all others of a first commit.
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
  if (!recorded) return absl::OkStatus();  // a duplicate commit frame: the pages are where they were
  for (std::size_t i = 0; i < frames.size(); ++i) {
    if (frames[i].frame != 0) {
      wal_pages_[frames[i].page] = {frames[i].frame, recorded->page_hashes[i]};
    }
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
