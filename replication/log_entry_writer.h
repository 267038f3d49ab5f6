// Writing one entry into the last segment of the log.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "replication/change_log_impl.h"

namespace echofs {

// A payload up to kBufferSize is held in memory and written with its header in one call. A larger
// one goes to its place piece by piece behind a hole for the header, which is written last: until
// then there is no record.
class LogEntryWriter final : public EntryWriter {
 public:
  static constexpr std::size_t kBufferSize = 256 << 10;  // bytes

  // The caller has taken the write lock of `log`, which this releases. `offset`: the end of the log
  // in `file`.
  LogEntryWriter(ChangeLogImpl* log, std::string database, std::shared_ptr<File> file,
                 std::uint64_t offset);
  ~LogEntryWriter() override;

  absl::Status Write(ByteView bytes) override;
  absl::StatusOr<LogIndex> Commit(const LogEntry& entry) override;

 private:
  std::size_t HeaderSize() const { return kRecordHeaderSize + database_.size(); }
  // Writes what is in the buffer to its place in the payload.
  absl::Status Flush();
  absl::Status WriteRecord(LogEntry* entry);
  // Takes back what was written, if need be, and releases the write lock.
  void Finish(bool committed);

  ChangeLogImpl* log_;  // null when done
  const std::string database_;
  const std::shared_ptr<File> file_;
  const std::uint64_t offset_;  // of the record
  std::uint64_t payload_size_ = 0;
  // While nothing is flushed: room for the header, then the payload. Afterwards: the payload's last
  // bytes.
  std::vector<std::uint8_t> buffer_;
  std::optional<PayloadChecksum> checksum_;  // once something is flushed
  std::uint64_t flushed_ = 0;                // bytes of the payload
  bool wrote_ = false;                       // the file was touched
  absl::Status status_;                      // of the first failure
};

}  // namespace echofs
