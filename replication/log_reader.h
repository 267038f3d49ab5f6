// Reading the log while it grows, and what readers need of it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "replication/change_log.h"
#include "replication/log_segment.h"

namespace echofs {

// The readers' view of a log. Thread-safe.
class ReadableLog {
 public:
  virtual ~ReadableLog() = default;

  // Committed records of one segment.
  struct Span {
    std::shared_ptr<LogSegment> segment;
    LogIndex last;                 // the last of them
    std::uint64_t end_offset = 0;  // first byte after it
  };
  // The span that holds `index`; nothing when `index` is the next one to be appended; OutOfRange
  // when it is no longer, or not yet nearly, in the log.
  virtual absl::StatusOr<std::optional<Span>> Locate(LogIndex index) const = 0;

  // Counts the calls of TruncateAfter and Reset that took entries away. What was read from a span
  // is a committed entry if the count is afterwards what it was before Locate.
  virtual std::uint64_t truncations() const = 0;
  // The count now; OutOfRange when one of the truncations after number `since` took entry `index`
  // away.
  virtual absl::StatusOr<std::uint64_t> CheckKept(LogIndex index, std::uint64_t since) const = 0;

  virtual LogIndex readable_from() const = 0;
  virtual Storage* storage() const = 0;
};

// `log` is not owned. The first Next returns the entry at `from`.
std::unique_ptr<LogReader> MakeLogReader(const ReadableLog* log, LogIndex from);

}  // namespace echofs
