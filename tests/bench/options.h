// The command line of echofs_workload.
#pragma once

#include <cstdint>
#include <string>

namespace echofs::bench {

struct Options {
  std::string workload;
  std::string database;
  std::string journal = "wal";
  std::string synchronous = "normal";
  std::string replica;
  std::string log;
  double seconds = 1;
  std::uint64_t count = 0;  // 0: by time
  double rate = 1000;       // transactions a second
  std::uint64_t rows = 10000;
  std::uint64_t range = 1;  // rows a read
  std::uint64_t megabytes = 200;
  std::uint64_t wal_pages = 0;
  std::uint64_t databases = 1;
  std::uint64_t processes = 8;
  std::uint64_t seed = 1;
  bool cold = false;
  bool wait = false;
};

// Ends the program when something is wrong.
Options ParseOptions(int argc, char** argv);

[[noreturn]] void DieOfUsage();
[[noreturn]] void Die(const std::string& message);

}  // namespace echofs::bench
