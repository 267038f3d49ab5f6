#include "fs/journal_apply.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "fs/sqlite_format.h"
#include "replication/failpoint.h"
#include "replication/status_macros.h"

namespace echofs::fs {

JournalApply::JournalApply(std::shared_ptr<File> main, InodeNumber inode, DatabaseLock* lock,
                           PageCache* cache, std::uint32_t page_size)
    : main_(std::move(main)), inode_(inode), lock_(lock), cache_(cache), page_size_(page_size) {
  SetPageSize(page_size);
}

absl::StatusOr<std::unique_ptr<JournalApply>> JournalApply::Start(
    std::shared_ptr<File> main, InodeNumber inode, DatabaseLock* lock, LockFile* lock_file,
    PageCache* cache, std::uint32_t page_size, std::uint32_t page_count, int* blocked_by_pid) {
  *blocked_by_pid = 0;
  ECHOFS_ASSIGN_OR_RETURN(const bool reserved, lock->TryReserved());
  if (!reserved) {
    *blocked_by_pid = lock_file->ConflictingPid(LockKind::kExclusive, sqlite::kReservedByte, 1);
    return absl::UnavailableError(
        fmt::format("process {} is writing the database", *blocked_by_pid));
  }
  std::unique_ptr<JournalApply> apply(
      new JournalApply(std::move(main), inode, lock, cache, page_size));
  apply->page_count_ = page_count;
  return apply;
}

void JournalApply::SetPageSize(std::uint32_t page_size) {
  page_size_ = page_size;
  page_count_ = 0;
  writer_.emplace(main_.get(), inode_, cache_, page_size);
}

absl::StatusOr<JournalApply::Attempt> JournalApply::TryLock(Turn turn) {
  if (exclusive_) return Attempt{true, 0, {}};
  const absl::Time now = absl::Now();
  const absl::Duration readers_turn = turns_.ReadersTurn(now);
  if (turn == Turn::kApply && readers_turn > absl::ZeroDuration()) {
    return Attempt{false, 0, readers_turn};
  }
  turns_.Begin(now);
  const auto pending =
      turns_.PendingIsOver(now) ? DatabaseLock::Pending::kDrop : DatabaseLock::Pending::kKeep;
  ECHOFS_ASSIGN_OR_RETURN(const DatabaseLock::Attempt attempt, lock_->TryExclusive(pending));
  exclusive_ = attempt.held;
  if (!attempt.held && pending == DatabaseLock::Pending::kDrop) turns_.End(now);
  return Attempt{attempt.held, attempt.blocked_by_pid, {}};
}

absl::Status JournalApply::WritePage(PageNumber number, ByteView page) {
  return writer_->Add(number, page);
}

absl::Status JournalApply::Finish(std::uint32_t page_count) {
  ECHOFS_RETURN_IF_ERROR(writer_->Flush());
  const std::uint64_t wanted = std::uint64_t{page_count} * page_size_;
  ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t size, main_->Size());
  if (size != wanted) {
    ECHOFS_RETURN_IF_ERROR(main_->Truncate(wanted));
    ECHOFS_RETURN_IF_ERROR(cache_->Invalidate(inode_, std::min(size, wanted), 0));
  }
  page_count_ = page_count;
  Failpoint("apply.pages.after");
  return absl::OkStatus();
}

absl::Status JournalApply::EndChange() {
  return !exclusive_ || turns_.ApplyIsOver(absl::Now()) ? Unlock() : absl::OkStatus();
}

absl::Status JournalApply::Unlock() {
  exclusive_ = false;
  turns_.End(absl::Now());
  return lock_->DowngradeToReserved();
}

absl::Status JournalApply::Rest() { return exclusive_ ? Unlock() : absl::OkStatus(); }

absl::Status JournalApply::ReadPage(PageNumber number, MutableByteView out) const {
  if (number > page_count_) {
    std::fill(out.begin(), out.end(), 0);
    return absl::OkStatus();
  }
  return ReadZeroFilled(*main_, (std::uint64_t{number} - 1) * page_size_, out);
}

}  // namespace echofs::fs
