#include "tests/bench/received_log.h"

#include <array>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "replication/log_entry.h"

namespace echofs {
namespace {

template <class T>
T OrDie(absl::StatusOr<T> result) {
  if (result.ok()) return *std::move(result);
  std::fprintf(stderr, "workload: reading a log: %s\n",
               std::string(result.status().message()).c_str());
  std::exit(1);
}

}  // namespace

ReceivedLog::ReceivedLog(std::string directory, std::string database)
    : directory_(std::move(directory)), database_(std::move(database)) {
  LogIndex newest;
  for (const std::string& name : OrDie(PosixStorage()->List(directory_))) {
    LogIndex base;
    if (ParseSegmentFileName(name, &base)) newest = base;  // names are sorted
  }
  OpenSegment(newest);
}

void ReceivedLog::OpenSegment(LogIndex base) {
  const std::string path = directory_ + "/" + SegmentFileName(base);
  OpenOptions options;
  options.read_only = true;
  segment_ = OrDie(PosixStorage()->Open(path, options));
  const SegmentStart start = OrDie(ReadSegmentStart(*segment_, path));
  if (const DatabasePosition* known = start.catalog.Find(database_)) {
    newest_txid_ = known->txid.value;
  }
  offset_ = start.data_start;
  base_ = last_ = base;
}

bool ReceivedLog::ReadRecord() {
  std::array<std::uint8_t, kRecordHeaderSize + kDatabaseNameSizeMax> bytes;
  const std::size_t n = OrDie(segment_->ReadAt(offset_, bytes));
  if (n < kRecordHeaderSize) return false;
  // The header is written last, or together with the rest: while it is not whole, it does not decode.
  const absl::StatusOr<LogEntry> entry = DecodeEntryHeader(ByteView(bytes.data(), n));
  if (!entry.ok() || OrDie(segment_->Size()) < offset_ + entry->RecordSize()) return false;
  offset_ += entry->RecordSize();
  last_ = entry->index;
  if (entry->database == database_) newest_txid_ = entry->txid.value;
  return true;
}

std::uint64_t ReceivedLog::NewestTxid() {
  while (true) {
    while (ReadRecord()) {
    }
    const bool full =
        last_ > base_ && OrDie(PosixStorage()->Exists(directory_ + "/" + SegmentFileName(last_)));
    if (!full) return newest_txid_;
    OpenSegment(last_);
  }
}

}  // namespace echofs
