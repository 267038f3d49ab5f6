// What the disk and the network of this machine take for what a replicated commit is made of.
#pragma once

#include <string>
#include <vector>

namespace echofs {

struct MachineTimes {
  // Microseconds. One write of two pages with the fdatasync that follows it;
  std::vector<float> sync;
  // the same for two files of one directory at the same time, until both are done;
  std::vector<float> paired_sync;
  // a small message over a TCP connection on loopback, and its answer.
  std::vector<float> round_trip;
};

// Measures each for `seconds`, in files that it makes in `directory` and removes. Throws std::system_error.
MachineTimes MeasureMachine(const std::string& directory, double seconds);

}  // namespace echofs
