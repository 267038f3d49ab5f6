// The clock that leases are counted on: it never jumps, and goes on while the machine sleeps (R2).
#pragma once

#include <time.h>

#include "absl/time/time.h"

namespace echofs {

// Since the boot of this machine.
inline absl::Duration BootTime() {
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  return absl::DurationFromTimespec(now);
}

}  // namespace echofs
