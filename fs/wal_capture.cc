#include "fs/wal_capture.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "replication/status_macros.h"

namespace echofs::fs {
namespace {

// Where a frame's salts and checksum are; SQLite leaves them zero when it will rewrite them later.
constexpr std::size_t kFrameSaltsOffset = 8;

bool HasNoChecksum(ByteView frame_header) {
  const ByteView rest = frame_header.subspan(kFrameSaltsOffset);
  return std::all_of(rest.begin(), rest.end(), [](std::uint8_t byte) { return byte == 0; });
}

}  // namespace

absl::Status WalCapture::ReadHeader() {
  std::array<std::uint8_t, sqlite::kWalHeaderSize> bytes;
  ECHOFS_ASSIGN_OR_RETURN(const std::size_t n, wal_->ReadAt(0, bytes));
  std::optional<sqlite::WalHeader> header = sqlite::ParseWalHeader(ByteView(bytes).first(n));
  const bool same = header && header_ && header->salt1 == header_->salt1 &&
                    header->salt2 == header_->salt2 && header->checksum == header_->checksum;
  if (same) return absl::OkStatus();
  OnTruncate(0);
  header_ = header;
  if (header_) captured_checksum_ = header_->checksum;
  return absl::OkStatus();
}

absl::Status WalCapture::Load(std::vector<WalCommit>* commits) {
  OnTruncate(0);
  behind_ = true;
  return CatchUp(commits);
}

absl::Status WalCapture::CatchUp(std::vector<WalCommit>* commits) {
  if (!behind_) return absl::OkStatus();
  ECHOFS_RETURN_IF_ERROR(ReadHeader());
  if (header_) {
    ForgetAfter(captured_);
    appended_.Clear();
    ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t size, wal_->Size());
    written_ = static_cast<std::uint32_t>((size - sqlite::kWalHeaderSize) / frame_size());
    ECHOFS_RETURN_IF_ERROR(Advance(commits));
  }
  behind_ = false;
  return absl::OkStatus();
}

std::uint32_t WalCapture::FrameAt(std::uint64_t offset) const {
  return static_cast<std::uint32_t>((offset - sqlite::kWalHeaderSize) / frame_size()) + 1;
}

bool WalCapture::RestartsWal(std::uint64_t offset, ByteView bytes) const {
  if (!header_ || captured_ == 0) return false;
  return offset < sqlite::kWalHeaderSize && !bytes.empty();
}

bool WalCapture::IsNewStart(std::uint64_t offset, ByteView bytes) const {
  if (offset != 0 || bytes.size() < sqlite::kWalHeaderSize) return false;
  const std::optional<sqlite::WalHeader> header =
      sqlite::ParseWalHeader(bytes.first(sqlite::kWalHeaderSize));
  return header && (header->salt1 != header_->salt1 || header->salt2 != header_->salt2);
}

absl::Status WalCapture::CheckCommitFrame(std::uint64_t offset, ByteView bytes) const {
  if (!appended_.Continues(offset, bytes.size()) || !appended_.has_header() ||
      !HasNoChecksum(appended_.header()) ||
      sqlite::ParseFrameHeader(appended_.header()).commit_page_count == 0) {
    return absl::OkStatus();
  }
  if (rewritten_from_ != 0 && rewritten_from_ <= verified_ + 1) return absl::OkStatus();
  return absl::FailedPreconditionError(
      fmt::format("this version of SQLite leaves the frames from {} to {} of a commit without "
                  "checksums, after a rollback to a savepoint or of a statement",
                  verified_ + 1, appended_.frame()));
}

absl::Status WalCapture::CheckWrite(std::uint64_t offset, ByteView bytes) {
  ECHOFS_RETURN_IF_ERROR(CheckCommitFrame(offset, bytes));
  if (!header_ || captured_ == 0 || offset < sqlite::kWalHeaderSize || bytes.empty() ||
      FrameAt(offset) > captured_) {
    return absl::OkStatus();
  }
  buffer_.resize(bytes.size());
  ECHOFS_ASSIGN_OR_RETURN(const std::size_t n, wal_->ReadAt(offset, buffer_));
  const std::uint64_t end = sqlite::FrameOffset(captured_ + 1, header_->page_size);
  const std::size_t size = std::min<std::uint64_t>(bytes.size(), end - offset);
  if (n >= size && std::memcmp(buffer_.data(), bytes.data(), size) == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(fmt::format(
      "a write to frame {} of the WAL would change a committed transaction", FrameAt(offset)));
}

absl::Status WalCapture::CheckPageOne(std::uint64_t offset, ByteView bytes) {
  if (!header_ || offset < sqlite::kWalHeaderSize || bytes.empty()) return absl::OkStatus();
  const std::uint32_t frame = FrameAt(offset);
  const std::uint64_t frame_offset = sqlite::FrameOffset(frame, header_->page_size);
  const std::uint64_t page_offset = frame_offset + sqlite::kFrameHeaderSize;
  const std::uint64_t header_end = page_offset + sqlite::kDatabaseHeaderSize;
  const std::uint64_t end = offset + bytes.size();
  // The piece that completes the header of a database is the one to look at.
  if (offset < page_offset || offset >= header_end || end < header_end) return absl::OkStatus();
  std::array<std::uint8_t, sqlite::kFrameHeaderSize> frame_header{};
  if (frame == appended_.frame() && appended_.has_header()) {
    std::copy(appended_.header().begin(), appended_.header().end(), frame_header.begin());
  } else {  // the page is rewritten in place
    ECHOFS_ASSIGN_OR_RETURN(const std::size_t n, wal_->ReadAt(frame_offset, frame_header));
    if (n < frame_header.size()) return absl::OkStatus();
  }
  if (sqlite::ParseFrameHeader(frame_header).page != 1) return absl::OkStatus();
  std::array<std::uint8_t, sqlite::kDatabaseHeaderSize> header{};
  ECHOFS_RETURN_IF_ERROR(ReadZeroFilled(*wal_, page_offset, header));
  const auto at = static_cast<std::size_t>(offset - page_offset);
  std::copy_n(bytes.begin(), header.size() - at, header.begin() + static_cast<std::ptrdiff_t>(at));
  if (sqlite::ParseDatabaseHeader(header)) return absl::OkStatus();
  return absl::FailedPreconditionError("a transaction would leave no database header in page 1");
}

absl::Status WalCapture::OnWrite(std::uint64_t offset, ByteView bytes,
                                 std::vector<WalCommit>* commits) {
  absl::Status status = Follow(offset, bytes, commits);
  if (!status.ok()) behind_ = true;
  return status;
}

absl::Status WalCapture::Follow(std::uint64_t offset, ByteView bytes,
                                std::vector<WalCommit>* commits) {
  if (bytes.empty()) return absl::OkStatus();
  if (offset < sqlite::kWalHeaderSize) ECHOFS_RETURN_IF_ERROR(ReadHeader());
  const std::uint64_t end = offset + bytes.size();
  if (!header_ || end <= sqlite::kWalHeaderSize) return absl::OkStatus();

  const std::uint32_t first = FrameAt(std::max<std::uint64_t>(offset, sqlite::kWalHeaderSize));
  const std::uint32_t last = FrameAt(end - 1);
  if (first <= verified_) ForgetAfter(std::max(first - 1, captured_));

  const std::uint64_t first_offset = sqlite::FrameOffset(first, header_->page_size);
  if (offset == first_offset && bytes.size() <= sqlite::kFrameHeaderSize) {
    appended_.Start(first, offset, header_->page_size);
  }
  if (appended_.Continues(offset, bytes.size())) return FollowAppend(bytes, commits);
  if (offset > first_offset) {
    rewritten_from_ = rewritten_from_ == 0 ? first : std::min(rewritten_from_, first);
  }
  if (appended_.frame() >= first && appended_.frame() <= last) appended_.Clear();
  const auto complete = static_cast<std::uint32_t>((end - sqlite::kWalHeaderSize) / frame_size());
  written_ = std::max(written_, complete);
  if (verified_ + 1 < first || verified_ + 1 > last) return absl::OkStatus();
  return Advance(commits);
}

// A piece of the frame that is being appended.
absl::Status WalCapture::FollowAppend(ByteView bytes, std::vector<WalCommit>* commits) {
  const bool had_header = appended_.has_header();
  appended_.Add(bytes);
  const std::uint32_t frame = appended_.frame();
  if (!had_header && appended_.has_header()) {
    if (!HasNoChecksum(appended_.header())) rewritten_from_ = 0;
    // Its page comes next; only a rewritten checksum completes a frame whose page is there already.
    return frame == verified_ + 1 && frame <= written_ ? Advance(commits) : absl::OkStatus();
  }
  if (!appended_.complete()) return absl::OkStatus();
  written_ = std::max(written_, frame);
  const bool joins =
      frame == verified_ + 1 && Verify(appended_.header(), appended_.page(), commits);
  appended_.Clear();
  return joins ? Advance(commits) : absl::OkStatus();
}

absl::Status WalCapture::Advance(std::vector<WalCommit>* commits) {
  while (verified_ < written_) {
    buffer_.resize(frame_size());
    const std::uint64_t offset = sqlite::FrameOffset(verified_ + 1, header_->page_size);
    ECHOFS_ASSIGN_OR_RETURN(const std::size_t n, wal_->ReadAt(offset, buffer_));
    if (n < buffer_.size()) return absl::OkStatus();
    const ByteView frame(buffer_);
    if (!Verify(frame.first(sqlite::kFrameHeaderSize), frame.subspan(sqlite::kFrameHeaderSize),
                commits)) {
      return absl::OkStatus();
    }
  }
  return absl::OkStatus();
}

bool WalCapture::Verify(ByteView frame_header, ByteView page, std::vector<WalCommit>* commits) {
  const sqlite::FrameHeader frame = sqlite::ParseFrameHeader(frame_header);
  if (frame.salt1 != header_->salt1 || frame.salt2 != header_->salt2 || frame.page == 0) {
    return false;
  }
  const sqlite::WalChecksum previous =
      open_checksums_.empty() ? captured_checksum_ : open_checksums_.back();
  if (sqlite::FrameChecksum(previous, frame_header, page, header_->big_endian_checksum) !=
      frame.checksum) {
    return false;
  }
  ++verified_;
  open_frames_.push_back({frame.page, verified_});
  open_checksums_.push_back(frame.checksum);
  if (frame.commit_page_count == 0) return true;

  commits->push_back({std::exchange(open_frames_, {}), header_->page_size, frame.commit_page_count,
                      header_->salt1, header_->salt2});
  open_checksums_.clear();
  captured_ = verified_;
  captured_checksum_ = frame.checksum;
  return true;
}

void WalCapture::ForgetAfter(std::uint32_t frame) {
  if (frame >= verified_) return;
  verified_ = frame;
  open_frames_.resize(frame - captured_);
  open_checksums_.resize(frame - captured_);
}

bool WalCapture::KeepsCaptured(std::uint64_t size) const {
  return header_ && size >= sqlite::FrameOffset(captured_ + 1, header_->page_size);
}

void WalCapture::OnTruncate(std::uint64_t size) {
  if (KeepsCaptured(size)) {
    const auto frames = static_cast<std::uint32_t>((size - sqlite::kWalHeaderSize) / frame_size());
    written_ = std::min(written_, frames);
    ForgetAfter(std::max(captured_, std::min(verified_, frames)));
    return;
  }
  header_.reset();
  captured_ = verified_ = written_ = rewritten_from_ = 0;
  appended_.Clear();
  captured_checksum_ = {};
  open_frames_.clear();
  open_checksums_.clear();
}

}  // namespace echofs::fs
