// The clock that leases are counted on, CLOCK_BOOTTIME: it never jumps, and goes on while the machine sleeps (R2).
#pragma once

#include <time.h>

#include <cstdint>

#include "absl/time/time.h"

namespace echofs {

// Nanoseconds since the boot of this machine.
inline std::int64_t BootNanoseconds() {
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

inline absl::Duration BootTime() { return absl::Nanoseconds(BootNanoseconds()); }

// As an absl::Time; only differences mean something.
inline absl::Time LeaseClockNow() { return absl::FromUnixNanos(BootNanoseconds()); }

}  // namespace echofs
