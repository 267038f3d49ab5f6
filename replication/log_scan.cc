#include "replication/log_scan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

#include "replication/status_macros.h"

namespace echofs {
namespace {

constexpr std::size_t kReadAhead = 64 << 10;  // bytes

std::string_view MessageOf(const absl::Status& status) {
  return {status.message().data(), status.message().size()};
}

}  // namespace

static_assert(kRecordHeaderSize + kDatabaseNameSizeMax <= BufferedFile::kViewSizeMax);

BufferedFile::BufferedFile(std::unique_ptr<File> file, std::string path)
    : file_(std::move(file)), path_(std::move(path)), buffer_(kReadAhead) {}

absl::StatusOr<ByteView> BufferedFile::View(std::uint64_t offset, std::size_t size,
                                            std::uint64_t limit) {
  ECHOFS_CHECK(size <= kViewSizeMax);
  if (offset >= limit) return ByteView();
  size = std::min<std::uint64_t>(size, limit - offset);
  if (offset < buffer_offset_ || offset + size > buffer_offset_ + buffer_size_) {
    const std::size_t wanted = std::min<std::uint64_t>(kReadAhead, limit - offset);
    buffer_size_ = 0;
    ECHOFS_ASSIGN_OR_RETURN(buffer_size_,
                            file_->ReadAt(offset, MutableByteView(buffer_).first(wanted)));
    buffer_offset_ = offset;
  }
  const std::size_t skip = offset - buffer_offset_;
  return ByteView(buffer_).subspan(skip, std::min(size, buffer_size_ - skip));
}

absl::StatusOr<std::size_t> BufferedFile::Read(std::uint64_t offset, std::uint64_t limit,
                                               MutableByteView out) {
  if (offset >= limit || out.empty()) return 0;
  out = out.first(std::min<std::uint64_t>(out.size(), limit - offset));
  const bool inside = offset >= buffer_offset_ && offset < buffer_offset_ + buffer_size_;
  // What is large is read in place, after what the buffer has of it.
  if (!inside && out.size() >= kViewSizeMax) return file_->ReadAt(offset, out);
  if (!inside) {
    ECHOFS_ASSIGN_OR_RETURN(const ByteView view, View(offset, 1, limit));
    if (view.empty()) return 0;
  }
  const std::size_t skip = offset - buffer_offset_;
  const std::size_t n = std::min(out.size(), buffer_size_ - skip);
  std::memcpy(out.data(), buffer_.data() + skip, n);
  return n;
}

absl::Status DamagedRecord(const std::string& path, std::uint64_t offset, std::string_view what) {
  return absl::DataLossError(fmt::format("{}{} is damaged at offset {}: {}",
                                         path.ends_with(".seg") ? "log segment " : "", path, offset,
                                         what));
}

absl::StatusOr<LogEntry> ReadEntryAt(BufferedFile& file, std::uint64_t offset,
                                     std::uint64_t limit) {
  ECHOFS_ASSIGN_OR_RETURN(const ByteView bytes,
                          file.View(offset, kRecordHeaderSize + kDatabaseNameSizeMax, limit));
  absl::StatusOr<LogEntry> entry = DecodeEntryHeader(bytes);
  if (!entry.ok()) return DamagedRecord(file.path(), offset, MessageOf(entry.status()));
  if (entry->RecordSize() > limit - offset) {
    return DamagedRecord(file.path(), offset,
                         fmt::format("the record has {} bytes, only {} are here",
                                     entry->RecordSize(), limit - offset));
  }
  return entry;
}

absl::Status VerifyPayload(BufferedFile& file, const LogEntry& entry, std::uint64_t offset) {
  const std::uint64_t end = offset + entry.RecordSize();
  const std::uint64_t payload_end = end - kRecordTrailerSize;
  std::uint64_t at = payload_end - entry.payload_size;
  PayloadChecksum checksum;
  std::vector<std::uint8_t> piece(std::min<std::uint64_t>(entry.payload_size, kReadAhead));
  while (at < payload_end) {
    ECHOFS_ASSIGN_OR_RETURN(const std::size_t n, file.Read(at, payload_end, piece));
    if (n == 0) return DamagedRecord(file.path(), at, "the file ends in a payload");
    checksum.Add(ByteView(piece).first(n));
    at += n;
  }
  ECHOFS_ASSIGN_OR_RETURN(const ByteView trailer, file.View(at, kRecordTrailerSize, end));
  if (trailer.size() < kRecordTrailerSize || LoadBe64(trailer.data()) != checksum.Value()) {
    return DamagedRecord(
        file.path(), offset,
        fmt::format("wrong checksum of the payload of entry {}", entry.index.value));
  }
  return absl::OkStatus();
}

absl::Status ScanRecords(BufferedFile& file, std::uint64_t limit, LogIndex until,
                         bool verify_payloads, LogSegment* segment, ScanState* state) {
  while (state->last < until && state->offset < limit) {
    ECHOFS_ASSIGN_OR_RETURN(const LogEntry entry, ReadEntryAt(file, state->offset, limit));
    const absl::Status follows = CheckFollows(entry, state->last, state->last_term, state->catalog);
    if (!follows.ok()) return DamagedRecord(file.path(), state->offset, MessageOf(follows));
    if (verify_payloads) ECHOFS_RETURN_IF_ERROR(VerifyPayload(file, entry, state->offset));
    state->catalog.Apply(entry);
    state->terms.Add(entry.index, entry.term);
    state->last = entry.index;
    state->last_term = entry.term;
    segment->AddPoint(entry.index, state->offset);
    state->offset += entry.RecordSize();
  }
  return absl::OkStatus();
}

}  // namespace echofs
