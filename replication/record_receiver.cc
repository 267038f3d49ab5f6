#include "replication/record_receiver.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "replication/limits.h"
#include "replication/status_macros.h"

namespace echofs {
namespace {

constexpr std::size_t kNameLengthOffset = 6;

// Moves bytes from the front of `from` to `to`, until that has `size`.
void Take(ByteView& from, std::vector<std::uint8_t>& to, std::size_t size) {
  const std::size_t n = std::min(from.size(), size - to.size());
  to.insert(to.end(), from.begin(), from.begin() + static_cast<std::ptrdiff_t>(n));
  from = from.subspan(n);
}

absl::Status Damaged(const std::string& what) {
  return absl::DataLossError("the primary sent a damaged log record: " + what);
}

}  // namespace

RecordReceiver::RecordReceiver(ChangeLog* log, Term term_max,
                               std::function<void(const LogEntry&, Payload)> on_entry)
    : log_(log), term_max_(term_max), on_entry_(std::move(on_entry)) {}

RecordReceiver::~RecordReceiver() = default;

absl::Status RecordReceiver::Receive(ByteView bytes) {
  while (!bytes.empty()) {
    switch (part_) {
      case Part::kHeader:
        ECHOFS_RETURN_IF_ERROR(ReceiveHeader(bytes));
        break;
      case Part::kPayload:
        ECHOFS_RETURN_IF_ERROR(ReceivePayload(bytes));
        break;
      case Part::kTrailer:
        ECHOFS_RETURN_IF_ERROR(ReceiveTrailer(bytes));
        break;
    }
  }
  return absl::OkStatus();
}

absl::Status RecordReceiver::ReceiveHeader(ByteView& bytes) {
  if (header_.size() < kRecordHeaderSize) Take(bytes, header_, kRecordHeaderSize);
  if (header_.size() < kRecordHeaderSize) return absl::OkStatus();
  const std::size_t name_size = LoadBe16(header_.data() + kNameLengthOffset);
  if (name_size > kDatabaseNameSizeMax) {
    return Damaged(fmt::format("the database name has {} bytes", name_size));
  }
  Take(bytes, header_, kRecordHeaderSize + name_size);
  if (header_.size() < kRecordHeaderSize + name_size) return absl::OkStatus();
  return BeginEntry();
}

absl::Status RecordReceiver::BeginEntry() {
  absl::StatusOr<LogEntry> entry = DecodeEntryHeader(header_);
  if (!entry.ok()) return Damaged(std::string(entry.status().message()));
  entry_ = *std::move(entry);
  if (entry_.kind != EntryKind::kOpenTerm && !IsValidDatabaseName(entry_.database)) {
    return Damaged("the database has an invalid name");
  }
  if (entry_.term > term_max_) {
    return Damaged(fmt::format("entry {} has term {}, the primary is at {}", entry_.index.value,
                               entry_.term.value, term_max_.value));
  }
  if (entry_.index != log_->last_index().Next()) {
    return Damaged(
        fmt::format("entry {} comes after entry {}", entry_.index.value, log_->last_index().value));
  }
  if (entry_.payload_size > kPayloadSizeMax) {
    return Damaged(fmt::format("a payload of {} bytes", entry_.payload_size));
  }
  ECHOFS_ASSIGN_OR_RETURN(writer_, log_->Begin(entry_));
  checksum_ = std::make_unique<PayloadChecksum>();
  kept_.reset();
  if (entry_.payload_size <= kQueuedPayloadSizeMax) {
    kept_.emplace();
    kept_->reserve(entry_.payload_size);
  }
  payload_left_ = entry_.payload_size;
  part_ = payload_left_ != 0 ? Part::kPayload : Part::kTrailer;
  return absl::OkStatus();
}

absl::Status RecordReceiver::ReceivePayload(ByteView& bytes) {
  const ByteView piece =
      bytes.first(static_cast<std::size_t>(std::min<std::uint64_t>(bytes.size(), payload_left_)));
  ECHOFS_RETURN_IF_ERROR(writer_->Write(piece));
  checksum_->Add(piece);
  if (kept_) kept_->insert(kept_->end(), piece.begin(), piece.end());
  bytes = bytes.subspan(piece.size());
  payload_left_ -= piece.size();
  if (payload_left_ == 0) part_ = Part::kTrailer;
  return absl::OkStatus();
}

absl::Status RecordReceiver::ReceiveTrailer(ByteView& bytes) {
  Take(bytes, trailer_, kRecordTrailerSize);
  if (trailer_.size() < kRecordTrailerSize) return absl::OkStatus();
  if (LoadBe64(trailer_.data()) != checksum_->Value()) {
    return Damaged(fmt::format("the payload of entry {} of {} has a wrong checksum",
                               entry_.index.value, entry_.database));
  }
  return CommitEntry();
}

absl::Status RecordReceiver::CommitEntry() {
  absl::StatusOr<LogIndex> index = writer_->Commit(entry_);
  writer_.reset();
  if (!index.ok()) return index.status();
  ECHOFS_CHECK(*index == entry_.index);
  header_.clear();
  trailer_.clear();
  part_ = Part::kHeader;
  on_entry_(entry_, std::exchange(kept_, std::nullopt));
  return absl::OkStatus();
}

}  // namespace echofs
