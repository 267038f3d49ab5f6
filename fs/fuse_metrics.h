// Counts of what the kernel asks a mount for, and of the errors that it was answered with.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "replication/metrics.h"

namespace echofs::fs {

// Thread-safe; see Metrics.
class FuseMetrics {
 public:
  static constexpr std::size_t kOperations = 64;
  static constexpr std::size_t kErrors = 136;

  // A request as it was read from /dev/fuse.
  void CountRequest(const void* request, std::size_t size);
  void CountError(int error);

  // Requests with one opcode of linux/fuse.h; those that do not fit are with 0.
  std::uint64_t requests(std::size_t opcode) const { return requests_[opcode].value(); }
  // Answers with one errno; those that do not fit are with 0.
  std::uint64_t errors(std::size_t error) const { return errors_[error].value(); }

 private:
  std::array<Counter, kOperations> requests_;
  std::array<Counter, kErrors> errors_;
};

// "read", "write"; null for an opcode that has no name here.
const char* FuseOperationName(std::size_t opcode);

}  // namespace echofs::fs
