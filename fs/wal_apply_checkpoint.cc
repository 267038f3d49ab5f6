// The checkpointing half of WalApply (A3); see the argument in wal_apply.h.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "fs/page_run_writer.h"
#include "fs/wal_apply.h"
#include "replication/failpoint.h"
#include "replication/status_macros.h"

namespace echofs::fs {

std::optional<std::array<std::uint32_t, sqlite::kReadMarkCount>> WalApply::RetrieveReadMarks() {
  std::array<std::uint32_t, sqlite::kReadMarkCount> marks;
  const absl::StatusOr<std::vector<std::uint8_t>> bytes =
      cache_->Retrieve(files_.shm_inode, WalIndex::kReadMarksOffset, sizeof(marks));
  if (!bytes.ok() || bytes->size() < sizeof(marks)) return std::nullopt;
  std::memcpy(marks.data(), bytes->data(), sizeof(marks));
  return marks;
}

// The caller holds the slot's lock. A mark shares its 8-byte word with another slot's, so four
// bytes are stored; a reader that sees them half old checks the mark again when it has the slot's
// lock.
absl::Status WalApply::SetReadMark(int slot, std::uint32_t frame) {
  index_->SetReadMark(slot, frame);
  return StoreIndex({{WalIndex::kReadMarksOffset + slot * sizeof(frame), sizeof(frame)}});
}

int WalApply::ReaderPid() const {
  return files_.shm_lock->ConflictingPid(LockKind::kExclusive, sqlite::ShmReadLock(0),
                                         sqlite::kReadMarkCount);
}

absl::Status WalApply::MaybeCheckpoint() {
  const std::uint32_t last = max_frame();
  if (last < next_checkpoint_) return absl::OkStatus();
  next_checkpoint_ = last + std::max<std::uint32_t>(1, options_.checkpoint_frames / 4);
  ECHOFS_ASSIGN_OR_RETURN(const bool complete, Checkpoint());
  if (complete) ECHOFS_RETURN_IF_ERROR(TryRestart().status());
  return absl::OkStatus();
}

absl::StatusOr<std::uint32_t> WalApply::SafeFrame(std::uint32_t max_frame) {
  std::uint32_t safe = max_frame;
  const auto marks = RetrieveReadMarks();
  for (int slot = 1; slot < sqlite::kReadMarkCount; ++slot) {
    const std::uint32_t mark = marks ? (*marks)[slot] : 0;
    if (mark >= safe) continue;
    ECHOFS_ASSIGN_OR_RETURN(
        const bool held,
        files_.shm_lock->TryLock(LockKind::kExclusive, sqlite::ShmReadLock(slot), 1));
    if (!held) {
      safe = mark;
      continue;
    }
    const ScopedUnlock unlock(files_.shm_lock.get(), sqlite::ShmReadLock(slot), 1);
    ECHOFS_RETURN_IF_ERROR(SetReadMark(slot, slot == 1 ? safe : WalIndex::kReadMarkNotUsed));
  }
  return safe;
}

absl::StatusOr<bool> WalApply::Checkpoint() {
  const WalIndexHeader header = index_->header();
  if (index_->backfill() == header.max_frame) return true;
  ECHOFS_ASSIGN_OR_RETURN(const std::uint32_t safe, SafeFrame(header.max_frame));
  if (safe <= index_->backfill()) return false;
  ECHOFS_ASSIGN_OR_RETURN(
      const bool held, files_.shm_lock->TryLock(LockKind::kExclusive, sqlite::ShmReadLock(0), 1));
  if (!held) return false;
  const ScopedUnlock unlock(files_.shm_lock.get(), sqlite::ShmReadLock(0), 1);
  ECHOFS_RETURN_IF_ERROR(Backfill(header, safe));
  return safe == header.max_frame;
}

absl::Status WalApply::Backfill(const WalIndexHeader& header, std::uint32_t safe_frame) {
  index_->SetBackfillAttempted(safe_frame);
  ECHOFS_RETURN_IF_ERROR(StoreWord(WalIndex::kBackfillAttemptedOffset));
  Failpoint("apply.checkpoint.before");
  ECHOFS_RETURN_IF_ERROR(options_.sync_log());
  ECHOFS_RETURN_IF_ERROR(files_.wal->Sync());
  Failpoint("apply.checkpoint_wal.after");
  ECHOFS_RETURN_IF_ERROR(CopyFrames(header, safe_frame));
  if (safe_frame == header.max_frame) {
    ECHOFS_RETURN_IF_ERROR(SetDatabaseSize(header.page_count));
  }
  Failpoint("apply.checkpoint_pages.after");
  ECHOFS_RETURN_IF_ERROR(files_.main->Sync());
  Failpoint("apply.checkpoint.after");
  // One word: nBackfill, and the read mark of slot 0, which is always 0.
  index_->SetBackfill(safe_frame);
  ECHOFS_RETURN_IF_ERROR(StoreWord(WalIndex::kBackfillOffset));
  ++stats_.checkpoints;
  return absl::OkStatus();
}

absl::Status WalApply::CopyFrames(const WalIndexHeader& header, std::uint32_t safe_frame) {
  std::vector<std::pair<PageNumber, std::uint32_t>> newest;
  for (std::uint32_t frame = index_->backfill() + 1; frame <= safe_frame; ++frame) {
    const PageNumber page = index_->PageOfFrame(frame);
    if (page <= header.page_count) newest.emplace_back(page, frame);
  }
  std::sort(newest.begin(), newest.end());
  PageRunWriter writer(files_.main.get(), files_.main_inode, cache_, options_.page_size);
  std::vector<std::uint8_t> page(options_.page_size);
  for (std::size_t i = 0; i < newest.size(); ++i) {
    if (i + 1 < newest.size() && newest[i + 1].first == newest[i].first) continue;
    const std::uint64_t offset = sqlite::FrameOffset(newest[i].second, options_.page_size);
    ECHOFS_ASSIGN_OR_RETURN(const std::size_t n,
                            files_.wal->ReadAt(offset + sqlite::kFrameHeaderSize, page));
    if (n != page.size()) {
      return absl::DataLossError(fmt::format("frame {} of the WAL is cut off", newest[i].second));
    }
    ECHOFS_RETURN_IF_ERROR(writer.Add(newest[i].first, page));
  }
  return writer.Flush();
}

absl::Status WalApply::SetDatabaseSize(std::uint32_t page_count) {
  const std::uint64_t wanted = std::uint64_t{page_count} * options_.page_size;
  ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t size, files_.main->Size());
  if (size == wanted) return absl::OkStatus();
  ECHOFS_RETURN_IF_ERROR(files_.main->Truncate(wanted));
  return cache_->Invalidate(files_.main_inode, std::min(size, wanted), 0);
}

absl::StatusOr<bool> WalApply::TryRestart() {
  WalIndexHeader header = index_->header();
  if (header.max_frame == 0 || index_->backfill() != header.max_frame) return false;
  constexpr int kWalSlots = sqlite::kReadMarkCount - 1;
  ECHOFS_ASSIGN_OR_RETURN(
      const bool held,
      files_.shm_lock->TryLock(LockKind::kExclusive, sqlite::ShmReadLock(1), kWalSlots));
  if (!held) return false;
  const ScopedUnlock unlock(files_.shm_lock.get(), sqlite::ShmReadLock(1), kWalSlots);
  sqlite::WalHeader old = wal_header_;
  Failpoint("apply.wal_restart.before");
  const absl::Status renewed =
      NewWalHeader(wal_header_.checkpoint_sequence + 1, wal_header_.salt1 + 1);
  if (!renewed.ok()) {
    // The frames go on under the old header, so that one must be there; without it nothing may
    // follow.
    broken_ = WriteWalHeader(&old);
    return renewed;
  }
  Failpoint("apply.wal_restart.after");
  header.max_frame = 0;
  header.big_endian_checksum = wal_header_.big_endian_checksum;
  header.salt1 = wal_header_.salt1;
  header.salt2 = wal_header_.salt2;
  header.frame_checksum = wal_header_.checksum;
  ECHOFS_RETURN_IF_ERROR(PublishHeader(header));
  index_->SetBackfill(0);
  index_->SetBackfillAttempted(0);
  index_->SetReadMark(1, 0);
  for (int slot = 2; slot < sqlite::kReadMarkCount; ++slot) {
    index_->SetReadMark(slot, WalIndex::kReadMarkNotUsed);
  }
  // The slots' locks are ours, so all words between may be stored.
  ECHOFS_RETURN_IF_ERROR(StoreIndex({{WalIndex::kBackfillOffset, 24}}));
  ECHOFS_RETURN_IF_ERROR(StoreWord(WalIndex::kBackfillAttemptedOffset));
  next_checkpoint_ = options_.checkpoint_frames;
  ++stats_.restarts;
  return true;
}

absl::Status WalApply::Stop() {
  ECHOFS_ASSIGN_OR_RETURN(const bool complete, Checkpoint());
  if (!complete) return absl::InternalError("a WAL reader is there in spite of an exclusive lock");
  return files_.main->Sync();
}

}  // namespace echofs::fs
