#include "replication/log_entry_writer.h"

#include <fmt/format.h>

#include <cstring>
#include <utility>

#include "replication/failpoint.h"
#include "replication/status_macros.h"

namespace echofs {

LogEntryWriter::LogEntryWriter(ChangeLogImpl* log, std::string database, std::shared_ptr<File> file,
                               std::uint64_t offset)
    : log_(log),
      database_(std::move(database)),
      file_(std::move(file)),
      offset_(offset),
      buffer_(std::move(log->write_buffer_)) {
  buffer_.resize(HeaderSize());
}

LogEntryWriter::~LogEntryWriter() { Finish(false); }

absl::Status LogEntryWriter::Write(ByteView bytes) {
  if (log_ == nullptr) return absl::FailedPreconditionError("the entry is complete");
  ECHOFS_RETURN_IF_ERROR(status_);
  if (bytes.size() > kPayloadSizeMax - payload_size_) {
    return status_ = absl::InvalidArgumentError(
               fmt::format("the payload is larger than {} bytes", kPayloadSizeMax));
  }
  payload_size_ += bytes.size();
  if (buffer_.size() + bytes.size() > kBufferSize + HeaderSize()) {
    if (status_ = Flush(); !status_.ok()) return status_;
    if (bytes.size() >= kBufferSize) {
      checksum_->Add(bytes);
      wrote_ = true;
      status_ = file_->WriteAt(offset_ + HeaderSize() + flushed_, bytes);
      flushed_ += bytes.size();
      return status_;
    }
  }
  buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  return absl::OkStatus();
}

absl::Status LogEntryWriter::Flush() {
  ByteView pending = buffer_;
  if (!checksum_.has_value()) {
    checksum_.emplace();
    pending = pending.subspan(HeaderSize());
  }
  checksum_->Add(pending);
  if (!pending.empty()) {
    wrote_ = true;
    ECHOFS_RETURN_IF_ERROR(file_->WriteAt(offset_ + HeaderSize() + flushed_, pending));
    flushed_ += pending.size();
  }
  buffer_.clear();
  return absl::OkStatus();
}

absl::StatusOr<LogIndex> LogEntryWriter::Commit(const LogEntry& entry) {
  if (log_ == nullptr) return absl::FailedPreconditionError("the entry is complete");
  LogEntry full = entry;
  full.payload_size = payload_size_;
  absl::Status status = status_;
  if (status.ok() && full.database != database_) {
    status =
        absl::InvalidArgumentError(fmt::format("the entry was begun for database '{}'", database_));
  }
  if (status.ok()) status = log_->Admit(&full);
  if (status.ok()) status = WriteRecord(&full);
  if (status.ok()) {
    Failpoint("log.append.after");
    log_->Publish(full);
  }
  Finish(status.ok());
  if (!status.ok()) return status;
  return full.index;
}

absl::Status LogEntryWriter::WriteRecord(LogEntry* entry) {
  Failpoint("log.append.before");
  const std::string header = EncodeEntryHeader(*entry);
  std::uint8_t trailer[kRecordTrailerSize];
  if (!checksum_.has_value()) {
    StoreBe64(trailer, PayloadChecksum::Of(ByteView(buffer_).subspan(HeaderSize())));
    std::memcpy(buffer_.data(), header.data(), header.size());
    buffer_.insert(buffer_.end(), std::begin(trailer), std::end(trailer));
    wrote_ = true;
    return file_->WriteAt(offset_, buffer_);
  }
  checksum_->Add(buffer_);
  StoreBe64(trailer, checksum_->Value());
  buffer_.insert(buffer_.end(), std::begin(trailer), std::end(trailer));
  ECHOFS_RETURN_IF_ERROR(file_->WriteAt(offset_ + HeaderSize() + flushed_, buffer_));
  Failpoint("log.header.before");
  return file_->WriteAt(offset_, AsBytes(header));
}

void LogEntryWriter::Finish(bool committed) {
  if (log_ == nullptr) return;
  // When the cut fails too, the next append tries again before it writes.
  if (!committed && wrote_) (void)log_->CutTail();
  log_->write_buffer_ = std::move(buffer_);
  log_->Release(&log_->write_held_);
  log_ = nullptr;
}

}  // namespace echofs
