#include "fs/wal_apply.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <random>
#include <utility>

#include "replication/failpoint.h"
#include "replication/status_macros.h"

namespace echofs::fs {
namespace {

constexpr std::size_t kBufferSizeMax = 1 << 20;                // bytes of frames written at once
constexpr std::uint32_t kMaxFrameLimit = 0xf0000000;           // frame numbers are u32
constexpr std::uint64_t kShmSizeMax = std::uint64_t{1} << 35;  // what kMaxFrameLimit frames need

std::uint32_t RandomSalt() {
  std::random_device device;
  return device();
}

}  // namespace

WalApply::WalApply(WalApplyFiles files, PageCache* cache, const WalApplyOptions& options)
    : files_(std::move(files)),
      cache_(cache),
      options_(options),
      next_checkpoint_(options.checkpoint_frames) {}

WalApply::~WalApply() { files_.shm_lock->Unlock(sqlite::kShmLockFirst, 9).IgnoreError(); }

absl::StatusOr<std::unique_ptr<WalApply>> WalApply::Start(WalApplyFiles files, PageCache* cache,
                                                          const WalApplyOptions& options,
                                                          int* blocked_by_pid) {
  std::unique_ptr<WalApply> apply(new WalApply(std::move(files), cache, options));
  ECHOFS_RETURN_IF_ERROR(apply->TakeLocks(blocked_by_pid));
  ECHOFS_RETURN_IF_ERROR(apply->BuildIndex());
  return apply;
}

absl::Status WalApply::TakeLocks(int* blocked_by_pid) {
  LockFile& lock = *files_.shm_lock;
  *blocked_by_pid = 0;
  // As SQLite does: whoever is alone empties the -shm, for what a crash left in it means nothing.
  ECHOFS_ASSIGN_OR_RETURN(const bool alone,
                          lock.TryLock(LockKind::kExclusive, sqlite::kShmDeadManSwitch, 1));
  if (alone) {
    ECHOFS_RETURN_IF_ERROR(files_.shm->Truncate(0));
    ECHOFS_RETURN_IF_ERROR(cache_->Invalidate(files_.shm_inode, 0, 0));
  }
  ECHOFS_ASSIGN_OR_RETURN(bool held, lock.TryLock(LockKind::kShared, sqlite::kShmDeadManSwitch, 1));
  if (!held) {
    *blocked_by_pid = lock.ConflictingPid(LockKind::kShared, sqlite::kShmDeadManSwitch, 1);
    return absl::UnavailableError("an application is opening the -shm file");
  }
  // WRITE, CKPT and RECOVER lie side by side.
  ECHOFS_ASSIGN_OR_RETURN(held, lock.TryLock(LockKind::kExclusive, sqlite::kShmWriteLock, 3));
  if (!held) {
    *blocked_by_pid = lock.ConflictingPid(LockKind::kExclusive, sqlite::kShmWriteLock, 3);
    return absl::UnavailableError(
        fmt::format("process {} writes or checkpoints the database", *blocked_by_pid));
  }
  return absl::OkStatus();
}

absl::Status WalApply::BuildIndex() {
  ECHOFS_ASSIGN_OR_RETURN(shm_size_, files_.shm->Size());
  if (shm_size_ > kShmSizeMax) return absl::DataLossError("the -shm file is impossibly long");
  index_->Reserve(shm_size_);
  ECHOFS_ASSIGN_OR_RETURN(Scan scan, ScanWal());
  if (scan.wal_header) {
    wal_header_ = *scan.wal_header;
  } else {
    ECHOFS_RETURN_IF_ERROR(NewWalHeader(0, RandomSalt()));
  }
  scan.header.page_size = options_.page_size;
  scan.header.big_endian_checksum = wal_header_.big_endian_checksum;
  scan.header.salt1 = wal_header_.salt1;
  scan.header.salt2 = wal_header_.salt2;
  if (scan.header.max_frame == 0) {
    scan.header.page_count = options_.page_count;
    scan.header.frame_checksum = wal_header_.checksum;
  }
  index_->Append(scan.pages);
  index_->SetBackfillAttempted(scan.header.max_frame);
  index_->SetReadMark(1, scan.header.max_frame);
  for (int slot = 2; slot < sqlite::kReadMarkCount; ++slot) {
    index_->SetReadMark(slot, WalIndex::kReadMarkNotUsed);
  }
  if (const auto marks = RetrieveReadMarks()) {
    for (int slot = 1; slot < sqlite::kReadMarkCount; ++slot) {
      index_->SetReadMark(slot, (*marks)[slot]);
    }
  }
  index_->Publish(scan.header);
  return GrowShm();
}

absl::Status WalApply::Activate() {
  const WalIndexHeader header = index_->header();
  ECHOFS_RETURN_IF_ERROR(StoreWord(WalIndex::kBackfillOffset));
  ECHOFS_RETURN_IF_ERROR(StoreWord(WalIndex::kBackfillAttemptedOffset));
  ECHOFS_RETURN_IF_ERROR(ResetReadMarks(header.max_frame));
  for (std::uint64_t at = 0; at < index_->size(); at += WalIndex::kRegionSize) {
    const std::uint64_t skipped = at == 0 ? WalIndex::kTablesOffset : 0;
    ECHOFS_RETURN_IF_ERROR(StoreIndex({{at + skipped, WalIndex::kRegionSize - skipped}}));
  }
  ECHOFS_RETURN_IF_ERROR(PublishHeader(header));
  return files_.shm_lock->Unlock(sqlite::kShmRecoverLock, 1);
}

absl::Status WalApply::NewWalHeader(std::uint32_t sequence, std::uint32_t salt1) {
  sqlite::WalHeader header;
  header.big_endian_checksum = std::endian::native == std::endian::big;
  header.page_size = options_.page_size;
  header.checkpoint_sequence = sequence;
  header.salt1 = salt1;
  header.salt2 = RandomSalt();
  ECHOFS_RETURN_IF_ERROR(WriteWalHeader(&header));
  ECHOFS_RETURN_IF_ERROR(files_.wal->Sync());
  wal_header_ = header;
  return absl::OkStatus();
}

absl::Status WalApply::WriteWalHeader(sqlite::WalHeader* header) {
  std::array<std::uint8_t, sqlite::kWalHeaderSize> bytes;
  sqlite::EncodeWalHeader(header, bytes);
  ECHOFS_RETURN_IF_ERROR(files_.wal->WriteAt(0, bytes));
  return cache_->Store(files_.wal_inode, 0, bytes);
}

absl::StatusOr<WalApply::Scan> WalApply::ScanWal() const {
  Scan scan;
  std::array<std::uint8_t, sqlite::kWalHeaderSize> bytes;
  ECHOFS_ASSIGN_OR_RETURN(const std::size_t size, files_.wal->ReadAt(0, bytes));
  const std::optional<sqlite::WalHeader> header =
      sqlite::ParseWalHeader(ByteView(bytes).first(size));
  if (!header || header->page_size != options_.page_size) return scan;
  scan.wal_header = header;
  sqlite::WalChecksum chain = header->checksum;
  std::vector<std::uint8_t> frame(options_.page_size + sqlite::kFrameHeaderSize);
  for (std::uint32_t number = 1; number < kMaxFrameLimit; ++number) {
    ECHOFS_ASSIGN_OR_RETURN(
        const std::size_t n,
        files_.wal->ReadAt(sqlite::FrameOffset(number, options_.page_size), frame));
    if (n != frame.size()) break;
    const sqlite::FrameHeader f = sqlite::ParseFrameHeader(frame);
    if (f.salt1 != header->salt1 || f.salt2 != header->salt2 || f.page == 0) break;
    chain = sqlite::FrameChecksum(chain, frame, ByteView(frame).subspan(sqlite::kFrameHeaderSize),
                                  header->big_endian_checksum);
    if (chain != f.checksum) break;
    scan.pages.push_back(f.page);
    if (f.commit_page_count != 0) {
      scan.header.max_frame = number;
      scan.header.page_count = f.commit_page_count;
      scan.header.frame_checksum = chain;
    }
  }
  scan.pages.resize(scan.header.max_frame);
  return scan;
}

absl::Status WalApply::ResetReadMarks(std::uint32_t max_frame) {
  for (int slot = 1; slot < sqlite::kReadMarkCount; ++slot) {
    ECHOFS_ASSIGN_OR_RETURN(
        const bool held,
        files_.shm_lock->TryLock(LockKind::kExclusive, sqlite::ShmReadLock(slot), 1));
    if (!held) continue;  // a reader's: its mark stays
    const ScopedUnlock unlock(files_.shm_lock.get(), sqlite::ShmReadLock(slot), 1);
    ECHOFS_RETURN_IF_ERROR(
        SetReadMark(slot, slot == 1 && max_frame != 0 ? max_frame : WalIndex::kReadMarkNotUsed));
  }
  return absl::OkStatus();
}

void WalApply::Begin() {
  const WalIndexHeader header = index_->header();
  chain_ = header.frame_checksum;
  new_pages_.clear();
  pending_number_ = 0;
  buffer_.clear();
  buffer_offset_ = sqlite::FrameOffset(std::uint64_t{header.max_frame} + 1, options_.page_size);
}

absl::Status WalApply::AddPage(PageNumber number, ByteView page) {
  ECHOFS_CHECK(number != 0 && page.size() == options_.page_size);
  ECHOFS_RETURN_IF_ERROR(EncodePending(0));
  pending_number_ = number;
  pending_page_.assign(page.begin(), page.end());
  return absl::OkStatus();
}

absl::Status WalApply::EncodePending(std::uint32_t commit_page_count) {
  if (pending_number_ == 0) return absl::OkStatus();
  ECHOFS_RETURN_IF_ERROR(broken_);
  if (std::uint64_t{max_frame()} + new_pages_.size() >= kMaxFrameLimit) {
    return absl::ResourceExhaustedError(
        "the WAL has too many frames; a reader keeps it from restarting");
  }
  sqlite::FrameHeader frame;
  frame.page = pending_number_;
  frame.commit_page_count = commit_page_count;
  frame.salt1 = wal_header_.salt1;
  frame.salt2 = wal_header_.salt2;
  const std::size_t at = buffer_.size();
  buffer_.resize(at + sqlite::kFrameHeaderSize);
  const MutableByteView header = MutableByteView(buffer_).subspan(at);
  sqlite::EncodeFrameHeader(frame, header);
  chain_ = sqlite::FrameChecksum(chain_, header, pending_page_, wal_header_.big_endian_checksum);
  frame.checksum = chain_;
  sqlite::EncodeFrameHeader(frame, header);
  buffer_.insert(buffer_.end(), pending_page_.begin(), pending_page_.end());
  new_pages_.push_back(pending_number_);
  pending_number_ = 0;
  return buffer_.size() >= kBufferSizeMax ? FlushFrames() : absl::OkStatus();
}

absl::Status WalApply::FlushFrames() {
  if (buffer_.empty()) return absl::OkStatus();
  Failpoint("apply.wal_write.before");
  ECHOFS_RETURN_IF_ERROR(files_.wal->WriteAt(buffer_offset_, buffer_));
  Failpoint("apply.wal_write.after");
  ECHOFS_RETURN_IF_ERROR(cache_->Store(files_.wal_inode, buffer_offset_, buffer_));
  buffer_offset_ += buffer_.size();
  buffer_.clear();
  return absl::OkStatus();
}

absl::Status WalApply::Commit(std::uint32_t page_count) {
  ECHOFS_CHECK(page_count != 0);
  if (pending_number_ == 0) {
    ECHOFS_CHECK(new_pages_.empty());
    std::vector<std::uint8_t> page(options_.page_size);
    ECHOFS_RETURN_IF_ERROR(ReadPage(1, page));
    ECHOFS_RETURN_IF_ERROR(AddPage(1, page));
  }
  ECHOFS_RETURN_IF_ERROR(EncodePending(page_count));
  ECHOFS_RETURN_IF_ERROR(FlushFrames());
  const std::vector<WalIndex::Range> ranges = index_->Append(new_pages_);
  ECHOFS_RETURN_IF_ERROR(GrowShm());
  ECHOFS_RETURN_IF_ERROR(StoreIndex(ranges));
  WalIndexHeader header = index_->header();
  header.change_counter++;
  header.max_frame += static_cast<std::uint32_t>(new_pages_.size());
  header.page_count = page_count;
  header.frame_checksum = chain_;
  Failpoint("apply.wal_publish.before");
  ECHOFS_RETURN_IF_ERROR(PublishHeader(header));
  Failpoint("apply.wal_publish.after");
  return absl::OkStatus();
}

absl::Status WalApply::Abandon() {
  Begin();
  return StoreIndex(index_->CleanTail());
}

absl::Status WalApply::ReadPage(PageNumber number, MutableByteView out) const {
  const WalIndexHeader header = index_->header();
  if (number > header.page_count) {
    std::fill(out.begin(), out.end(), 0);
    return absl::OkStatus();
  }
  const std::uint32_t frame = index_->FindFrame(number, header.max_frame);
  if (frame == 0) {
    return ReadZeroFilled(*files_.main, (std::uint64_t{number} - 1) * options_.page_size, out);
  }
  ECHOFS_ASSIGN_OR_RETURN(
      const std::size_t n,
      files_.wal->ReadAt(sqlite::FrameOffset(frame, options_.page_size) + sqlite::kFrameHeaderSize,
                         out));
  if (n == out.size()) return absl::OkStatus();
  return absl::DataLossError(fmt::format("frame {} of the WAL is cut off", frame));
}

absl::Status WalApply::GrowShm() {
  const std::uint64_t size = index_->size();
  if (size <= shm_size_) return absl::OkStatus();
  ECHOFS_RETURN_IF_ERROR(files_.shm->Truncate(size));
  shm_size_ = size;
  return absl::OkStatus();
}

absl::Status WalApply::StoreIndex(const std::vector<WalIndex::Range>& ranges) {
  std::vector<std::uint8_t> bytes;
  for (const WalIndex::Range& range : ranges) {
    bytes.resize(range.size);
    ECHOFS_CHECK(index_->Read(range.offset, bytes) == range.size);
    ECHOFS_RETURN_IF_ERROR(cache_->Store(files_.shm_inode, range.offset, bytes));
  }
  return absl::OkStatus();
}

absl::Status WalApply::StoreWord(std::uint64_t offset) { return StoreIndex({{offset, 8}}); }

absl::Status WalApply::PublishHeader(const WalIndexHeader& header) {
  const auto bytes = index_->Publish(header);
  ECHOFS_RETURN_IF_ERROR(cache_->Store(files_.shm_inode, WalIndex::kHeaderSize, bytes));
  return cache_->Store(files_.shm_inode, 0, bytes);
}

WalPosition WalApply::End() const {
  return {wal_header_.salt1, wal_header_.salt2, 0,
          sqlite::FrameOffset(std::uint64_t{max_frame()} + 1, options_.page_size)};
}

absl::Status WalApply::Retire() {
  ECHOFS_RETURN_IF_ERROR(cache_->Invalidate(files_.wal_inode, 0, 0));
  const WalIndex::Range headers = index_->ClearHeaders();
  return StoreIndex({headers});
}

absl::Status WalApply::Release() {
  // The read marks that count are in the kernel's page, if it has one; where it writes back to the
  // same bytes, ours must not get in between.
  std::vector<std::uint8_t> image(index_->size());
  index_->Read(0, image);
  const bool kernel_has_marks = RetrieveReadMarks().has_value();
  const std::size_t first = kernel_has_marks ? WalIndex::kReadMarksOffset : sqlite::kShmLockFirst;
  ECHOFS_RETURN_IF_ERROR(files_.shm->WriteAt(0, ByteView(image).first(first)));
  return files_.shm->WriteAt(sqlite::kShmLockFirst, ByteView(image).subspan(sqlite::kShmLockFirst));
}

}  // namespace echofs::fs
