#include "replication/log_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "replication/log_scan.h"
#include "replication/status_macros.h"

namespace echofs {
namespace {

class LogReaderImpl final : public LogReader {
 public:
  LogReaderImpl(const ReadableLog* log, LogIndex from)
      : log_(log), truncations_(log->truncations()), next_(from) {}

  absl::StatusOr<std::optional<LogEntry>> Next() override;
  std::unique_ptr<ByteSource> Payload() override;
  std::unique_ptr<ByteSource> Record() override;

 private:
  friend class RecordSource;

  // Reads the header of the entry next_ without moving on. What it returns is to be believed only
  // if no truncation came in between.
  absl::StatusOr<std::optional<LogEntry>> ReadNext();
  // Goes to the record next_, whose span is not known; false at the end of the log.
  absl::StatusOr<bool> FindNext();
  absl::Status OpenSegment(std::shared_ptr<LogSegment> segment);
  // Skips records from the nearest known one to next_.
  absl::Status Seek();
  void ForgetPlace();

  const ReadableLog* const log_;
  std::uint64_t truncations_;  // the count up to which what was returned is known to be valid
  LogIndex next_;

  // The segment that is open, null before the first entry, and the committed part of it as last
  // seen.
  std::shared_ptr<LogSegment> segment_;
  std::unique_ptr<BufferedFile> file_;
  LogIndex span_last_;
  std::uint64_t span_end_ = 0;
  std::uint64_t offset_ = 0;  // of the record next_, when it is within the span

  // The entry that was returned last, and where it is.
  std::uint64_t calls_ = 0;  // of Next
  bool has_entry_ = false;
  LogEntry entry_;
  std::uint64_t entry_offset_ = 0;
};

// A part of the record that a reader returned last. Passes the payload on through the checksum and
// gives its last bytes out only when that is right.
class RecordSource final : public ByteSource {
 public:
  RecordSource(LogReaderImpl* reader, std::uint64_t begin, std::uint64_t end)
      : reader_(reader), call_(reader->calls_), at_(begin), end_(end) {
    record_end_ = reader->entry_offset_ + reader->entry_.RecordSize();
    payload_end_ = record_end_ - kRecordTrailerSize;
    payload_begin_ = payload_end_ - reader->entry_.payload_size;
  }

  absl::StatusOr<std::size_t> Read(MutableByteView out) override {
    if (call_ != reader_->calls_ || !reader_->has_entry_) {
      return absl::FailedPreconditionError("the log reader does not stand on this entry");
    }
    absl::StatusOr<std::size_t> n = ReadChecked(out);
    // A truncation explains whatever was found; without one it stands.
    if (reader_->log_->truncations() != reader_->truncations_) {
      const auto kept = reader_->log_->CheckKept(reader_->entry_.index, reader_->truncations_);
      if (!kept.ok()) return kept.status();
    }
    return n;
  }

 private:
  absl::StatusOr<std::size_t> ReadChecked(MutableByteView out) {
    if (at_ < end_) {
      ECHOFS_ASSIGN_OR_RETURN(const std::size_t n, reader_->file_->Read(at_, end_, out));
      if (n == 0 && !out.empty()) return Damaged("the file ends in a record");
      const std::uint64_t begin = std::max(at_, payload_begin_);
      at_ += n;
      const std::uint64_t end = std::min(at_, payload_end_);
      if (begin < end) checksum_.Add(out.subspan(begin - (at_ - n), end - begin));
      ECHOFS_RETURN_IF_ERROR(Verify());
      return n;
    }
    ECHOFS_RETURN_IF_ERROR(Verify());
    return 0;
  }

  // Once the payload is through.
  absl::Status Verify() {
    if (at_ < payload_end_ || verified_) return absl::OkStatus();
    std::uint8_t trailer[kRecordTrailerSize];
    std::size_t have = 0;
    while (have < kRecordTrailerSize) {
      ECHOFS_ASSIGN_OR_RETURN(const std::size_t n,
                              reader_->file_->Read(payload_end_ + have, record_end_,
                                                   MutableByteView(trailer).subspan(have)));
      if (n == 0) return Damaged("the file ends in a record");
      have += n;
    }
    if (LoadBe64(trailer) != checksum_.Value()) return Damaged("wrong checksum of the payload");
    verified_ = true;
    return absl::OkStatus();
  }

  absl::Status Damaged(std::string_view what) const {
    return DamagedRecord(reader_->file_->path(), reader_->entry_offset_,
                         fmt::format("entry {}: {}", reader_->entry_.index.value, what));
  }

  LogReaderImpl* const reader_;
  const std::uint64_t call_;  // the call of Next that this belongs to
  std::uint64_t at_;
  const std::uint64_t end_;
  std::uint64_t payload_begin_, payload_end_, record_end_;
  PayloadChecksum checksum_;
  bool verified_ = false;
};

absl::StatusOr<std::optional<LogEntry>> LogReaderImpl::Next() {
  ++calls_;
  has_entry_ = false;
  for (;;) {
    absl::StatusOr<std::optional<LogEntry>> entry = ReadNext();
    if (log_->truncations() != truncations_) {
      ECHOFS_ASSIGN_OR_RETURN(truncations_, log_->CheckKept(next_.Previous(), truncations_));
      ForgetPlace();
      continue;
    }
    const LogIndex first = log_->readable_from();
    if (next_ < first) {
      return absl::OutOfRangeError(fmt::format(
          "entry {} is no longer in the log, which starts at {}", next_.value, first.value));
    }
    if (!entry.ok() || !entry->has_value()) return entry;
    entry_ = **entry;
    has_entry_ = true;
    entry_offset_ = offset_;
    offset_ += entry_.RecordSize();
    next_ = next_.Next();
    return entry;
  }
}

absl::StatusOr<std::optional<LogEntry>> LogReaderImpl::ReadNext() {
  if (segment_ == nullptr || next_ > span_last_) {
    ECHOFS_ASSIGN_OR_RETURN(const bool found, FindNext());
    if (!found) return std::optional<LogEntry>();
  }
  ECHOFS_ASSIGN_OR_RETURN(LogEntry entry, ReadEntryAt(*file_, offset_, span_end_));
  if (entry.index != next_) {
    return DamagedRecord(
        segment_->path(), offset_,
        fmt::format("entry {} is where {} should be", entry.index.value, next_.value));
  }
  return std::optional<LogEntry>(std::move(entry));
}

absl::StatusOr<bool> LogReaderImpl::FindNext() {
  ECHOFS_ASSIGN_OR_RETURN(const std::optional<ReadableLog::Span> span, log_->Locate(next_));
  if (!span.has_value()) return false;
  if (span->segment != segment_) {
    ForgetPlace();
    span_end_ = span->end_offset;
    ECHOFS_RETURN_IF_ERROR(OpenSegment(span->segment));
    if (const absl::Status status = Seek(); !status.ok()) {
      ForgetPlace();
      return status;
    }
  }
  span_end_ = span->end_offset;
  span_last_ = span->last;
  return true;
}

absl::Status LogReaderImpl::OpenSegment(std::shared_ptr<LogSegment> segment) {
  OpenOptions options;
  options.read_only = true;
  ECHOFS_ASSIGN_OR_RETURN(std::unique_ptr<File> file,
                          log_->storage()->Open(segment->path(), options));
  file_ = std::make_unique<BufferedFile>(std::move(file), segment->path());
  segment_ = std::move(segment);
  return absl::OkStatus();
}

absl::Status LogReaderImpl::Seek() {
  LogSegment::Point point = segment_->Nearest(next_);
  while (point.index < next_) {
    ECHOFS_ASSIGN_OR_RETURN(const LogEntry entry, ReadEntryAt(*file_, point.offset, span_end_));
    if (entry.index != point.index) {
      return DamagedRecord(
          segment_->path(), point.offset,
          fmt::format("entry {} is where {} should be", entry.index.value, point.index.value));
    }
    segment_->AddPoint(point.index, point.offset);
    point = {point.index.Next(), point.offset + entry.RecordSize()};
  }
  offset_ = point.offset;
  return absl::OkStatus();
}

void LogReaderImpl::ForgetPlace() {
  segment_.reset();
  file_.reset();
  span_last_ = {};
  span_end_ = 0;
}

std::unique_ptr<ByteSource> LogReaderImpl::Payload() {
  const std::uint64_t end = entry_offset_ + entry_.RecordSize() - kRecordTrailerSize;
  return std::make_unique<RecordSource>(this, end - entry_.payload_size, end);
}

std::unique_ptr<ByteSource> LogReaderImpl::Record() {
  return std::make_unique<RecordSource>(this, entry_offset_, entry_offset_ + entry_.RecordSize());
}

}  // namespace

std::unique_ptr<LogReader> MakeLogReader(const ReadableLog* log, LogIndex from) {
  return std::make_unique<LogReaderImpl>(log, from);
}

}  // namespace echofs
