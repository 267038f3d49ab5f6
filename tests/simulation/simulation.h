// One simulated run: a cluster of three to five nodes in this process, with everything that a seed decides to go wrong,
// and then its recovery. No threads, no real time, no sockets, no files: the same seed gives the same run.
#pragma once

#include <cstdint>
#include <string>

#include "tests/simulation/world.h"

namespace echofs::sim {

struct RunResult {
  std::string failure;  // empty when all was well
  std::string description;
  Counts counts;
  std::uint64_t digest = 0;  // of everything that happened
};

// `trace` prints what happens to stdout. `sqlite`: transactions are made by real SQLite through the real capture
// (sqlite_client.h), which puts the real time into entries, so that two runs differ in that.
RunResult RunSeed(std::uint64_t seed, bool trace, bool sqlite = false);

}  // namespace echofs::sim
