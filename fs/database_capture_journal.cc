// The rollback journal side of DatabaseCapture, and databases that are recorded whole.
#include "fs/database_capture.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "fs/capture_pages.h"
#include "replication/digest.h"
#include "replication/failpoint.h"
#include "replication/status_macros.h"

namespace echofs::fs {
namespace {

std::vector<PageNumber> AllPages(std::uint32_t page_count, std::uint32_t page_size) {
  std::vector<PageNumber> numbers;
  numbers.reserve(page_count);
  for (PageNumber page = 1; page <= page_count; ++page) {
    if (page != LockPage(page_size)) numbers.push_back(page);
  }
  return numbers;
}

}  // namespace

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

absl::Status DatabaseCapture::WriteJournal(std::uint64_t offset, ByteView bytes) {
  ECHOFS_RETURN_IF_ERROR(LookAtJournal());
  const bool ends =
      journal_valid_ && offset == 0 && bytes.size() >= 8 && !sqlite::HasJournalMagic(bytes);
  if (ends) ECHOFS_RETURN_IF_ERROR(EndTransaction());
  if (absl::Status written = journal_->WriteAt(offset, bytes); !written.ok()) {
    journal_unread_ = true;
    return written;
  }
  if (ends) ForgetTransaction();
  if (offset == 0 && bytes.size() >= 8) {
    journal_valid_ = sqlite::HasJournalMagic(bytes);
  } else if (offset < 8) {
    journal_unread_ = true;
  }
  return LookAtJournal();
}

bool DatabaseCapture::EndsJournal(std::uint64_t offset, ByteView bytes) {
  absl::MutexLock files(&files_);
  return journal_valid_ && offset == 0 && bytes.size() >= 8 && !sqlite::HasJournalMagic(bytes);
}

absl::StatusOr<LogIndex> DatabaseCapture::LogTransaction() {
  absl::MutexLock files(&files_);
  ECHOFS_RETURN_IF_ERROR(LookAtJournal());
  if (!is_database_ || !journal_valid_ || !context_.acknowledged) return LogIndex{};
  ECHOFS_RETURN_IF_ERROR(EndTransaction());
  if (!application_syncs_ && !context_.acknowledged_always) return LogIndex{};
  absl::MutexLock logged(&logged_);
  return position_.index;
}

// What the file starts with decides, also for SQLite: after an error a part of a write may be there. A
// transaction is in the log before anything is written that could end it.
absl::Status DatabaseCapture::LookAtJournal() {
  if (!journal_unread_) return absl::OkStatus();
  std::array<std::uint8_t, 8> magic{};
  ECHOFS_RETURN_IF_ERROR(ReadZeroFilled(*journal_, 0, magic));
  journal_unread_ = false;
  if (journal_valid_ && !sqlite::HasJournalMagic(magic)) ForgetTransaction();
  journal_valid_ = sqlite::HasJournalMagic(magic);
  return absl::OkStatus();
}

// A full disk is told at a write, where SQLite calls it by its name: an error of the operation that ends the
// journal is an I/O error to it. What a rollback writes changes nothing, or is in `dirty_` already.
absl::Status DatabaseCapture::CheckLogRoom(std::uint64_t offset, ByteView bytes) {
  constexpr std::uint64_t kRoomStep = 64 << 10;  // bytes
  const std::uint64_t need =
      NeverCommitted() ? offset + bytes.size()
                       : std::uint64_t{dirty_.size()} * position_.page_size + bytes.size();
  if (need <= log_room_) return absl::OkStatus();
  std::vector<std::uint8_t> old(bytes.size());
  ECHOFS_RETURN_IF_ERROR(ReadZeroFilled(*main_, offset, old));
  if (std::equal(bytes.begin(), bytes.end(), old.begin())) return absl::OkStatus();
  ECHOFS_RETURN_IF_ERROR(context_.log->CheckRoom(need + kRoomStep));
  log_room_ = need + kRoomStep;
  return absl::OkStatus();
}

void DatabaseCapture::ForgetTransaction() {
  Failpoint("commit.journal_end.after");
  dirty_.clear();
  journal_valid_ = false;
  application_syncs_ = false;
  log_room_ = 0;
}

// The commit that made the database was logged, but its application was told otherwise, and took back that too.
absl::Status DatabaseCapture::EndCreation() {
  if (Fenced()) return RefuseFenced();
  ECHOFS_ASSIGN_OR_RETURN(position_, RecordDrop(*context_.log, context_.term(), position_));
  is_database_ = false;
  return application_syncs_ ? context_.log->Sync(position_.index) : absl::OkStatus();
}

// C4: the log entry is written, and synced if the application syncs, before the journal goes.
absl::Status DatabaseCapture::EndTransaction() {
  if (!is_database_) return absl::OkStatus();
  ECHOFS_RETURN_IF_ERROR(DrainLocked());
  Failpoint("commit.journal_log.before");
  absl::MutexLock logged(&logged_);
  entry_has_all_pages_ = false;
  ECHOFS_ASSIGN_OR_RETURN(const bool commits, RecordTransaction());
  if (commits) Failpoint("commit.journal_log.after");
  if (main_sync_due_ && !entry_has_all_pages_) ECHOFS_RETURN_IF_ERROR(main_->Sync());
  if (commits && application_syncs_) {
    ECHOFS_RETURN_IF_ERROR(context_.log->Sync(position_.index));
  }
  main_sync_due_ = false;
  if (!commits) return absl::OkStatus();
  Failpoint("commit.journal_end.before");
  // The process may have been stopped since it was asked (R2): the transaction is in doubt then.
  return Fenced() ? RefuseFenced() : absl::OkStatus();
}

absl::StatusOr<bool> DatabaseCapture::RecordTransaction() {
  absl::StatusOr<sqlite::DatabaseHeader> header = ReadMainHeader();
  if (NeverCommitted()) {
    // The creation was rolled back.
    if (absl::IsFailedPrecondition(header.status())) return false;
    if (!header.ok()) return header.status();
    if (Fenced()) return RefuseFenced();
  } else {
    if (!header.ok()) {
      ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t size, main_->Size());
      if (size == 0) {
        ECHOFS_RETURN_IF_ERROR(EndCreation());
        return false;
      }
      spdlog::error("{}: a transaction would leave no database header in page 1; refused", name_);
      return header.status();
    }
    const bool size_changed =
        header->page_count != position_.page_count || header->page_size != position_.page_size;
    if (dirty_.empty() && !size_changed) return false;
    if (Fenced()) {
      ECHOFS_ASSIGN_OR_RETURN(const bool differ, DirtyPagesDiffer());
      if (differ || size_changed) return RefuseFenced();
      return false;
    }
  }
  ECHOFS_RETURN_IF_ERROR(RecordMainFile(/*whole=*/false));
  wal_mode_ = header->wal_mode;
  return true;
}

bool DatabaseCapture::MainSyncCanBePutOff() {
  if (!is_database_ || wal_mode_ || !journal_valid_ || journal_unread_) return false;
  const absl::Duration since = absl::Now() - main_synced_at_;
  if (since < absl::ZeroDuration() || since >= context_.main_sync_interval)
    return false;  // or a clock that was set back
  {
    absl::MutexLock logged(&logged_);
    if (NeverCommitted()) return false;
  }
  const absl::StatusOr<bool> has_super_journal = MayNameSuperJournal(*journal_);
  return has_super_journal.ok() && !*has_super_journal;
}

// Appends what differs between the main file and the position. The candidates are the dirty pages and those
// that the database has grown by; all pages when the page size is new.
absl::Status DatabaseCapture::RecordMainFile(bool whole) {
  const absl::Time begin = absl::Now();
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
  entry_has_all_pages_ = true;
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const auto it = dirty_.find(numbers[i]);
    const bool left_out = it != dirty_.end() && it->second == recorded->page_hashes[i];
    if (left_out) entry_has_all_pages_ = false;
  }
  position_ = std::move(recorded->position);
  context_.metrics->commit.Observe(absl::Now() - begin);
  // Should the journal's operation fail now, the transaction goes on from here.
  for (std::size_t i = 0; i < numbers.size(); ++i) dirty_[numbers[i]] = recorded->page_hashes[i];
  return absl::OkStatus();
}

absl::StatusOr<bool> DatabaseCapture::DirtyPagesDiffer() {
  std::vector<std::uint8_t> page(position_.page_size);
  for (const auto& [number, hash] : dirty_) {
    if (number > position_.page_count) continue;
    ECHOFS_RETURN_IF_ERROR(
        ReadZeroFilled(*main_, std::uint64_t{number - 1} * position_.page_size, page));
    if (PageHash(number, page) != hash) return true;
  }
  return false;
}

bool DatabaseCapture::HasJournal() {
  absl::MutexLock files(&files_);
  return journal_valid_;
}

absl::Status DatabaseCapture::EndHotJournal(const std::function<absl::StatusOr<bool>()>& recover) {
  absl::MutexLock files(&files_);
  if (!journal_valid_) return absl::OkStatus();
  ECHOFS_ASSIGN_OR_RETURN(const std::optional<JournalContent> content, ReadJournal(*journal_));
  ECHOFS_ASSIGN_OR_RETURN(const bool counts, recover());
  repairing_ = true;
  absl::Status ended;
  if (counts && content) {
    ended = TakeJournalLocked(*content);
  } else {
    // Undone: what differs now are pages that were free, whose content SQLite does not journal.
    application_syncs_ = true;
    ended = EndTransaction();
  }
  repairing_ = false;
  if (!ended.ok() && !fenced_) return ended;
  ForgetTransaction();
  journal_.reset();
  if (ended.ok()) return ended;
  return absl::DataLossError(
      fmt::format("{}: a writer that died left pages that are not in the log", name_));
}

absl::Status DatabaseCapture::TakeJournal(const JournalContent& content) {
  absl::MutexLock files(&files_);
  repairing_ = true;
  absl::Status taken = TakeJournalLocked(content);
  repairing_ = false;
  return taken;
}

absl::Status DatabaseCapture::TakeJournalLocked(const JournalContent& content) {
  {
    absl::MutexLock logged(&logged_);
    std::vector<std::uint8_t> page(content.page_size);
    for (const auto& [number, offset] : content.pages) {
      ECHOFS_RETURN_IF_ERROR(ReadZeroFilled(*journal_, offset, page));
      // What was captured of the transaction is relative to the position, which may have it already.
      dirty_.try_emplace(number, PageHash(number, page));
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
  ECHOFS_RETURN_IF_ERROR(LookAtJournal());
  if (!is_database_ || journal_valid_ || Fenced()) return absl::OkStatus();
  absl::Status logged = DrainLocked();
  if (logged.ok()) logged = LogNewDatabase();
  if (!logged.ok()) {
    spdlog::error("{}: could not be put into the log, and will be tried again: {}", name_,
                  std::string(logged.message()));
    new_database_due_ = true;
    context_.wake();
  }
  return logged;
}

absl::Status DatabaseCapture::LogNewDatabase() {
  absl::StatusOr<sqlite::DatabaseHeader> header = ReadMainHeader();
  absl::MutexLock logged(&logged_);
  const bool is_new =
      NeverCommitted() && !absl::IsFailedPrecondition(header.status());  // no header is no database
  if (is_new) {
    ECHOFS_RETURN_IF_ERROR(header.status());
    ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t size, main_->Size());
    if (header->page_count != 0 && size >= std::uint64_t{header->page_count} * header->page_size) {
      ECHOFS_RETURN_IF_ERROR(RecordMainFile(/*whole=*/false));
      dirty_.clear();
      wal_mode_ = header->wal_mode;
    }
  }
  new_database_due_ = false;
  return absl::OkStatus();
}

}  // namespace echofs::fs
