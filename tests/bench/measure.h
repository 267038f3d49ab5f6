// Times, and how a workload tells its parent what it measured.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "tests/bench/options.h"

namespace echofs::bench {

using Clock = std::chrono::steady_clock;

inline double Microseconds(Clock::duration d) {
  return std::chrono::duration<double, std::micro>(d).count();
}
inline double Seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }
inline Clock::duration FromSeconds(double s) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(s));
}

// {"p50": ..., ...} of latencies in microseconds, as JSON.
std::string Percentiles(std::vector<float> values);

// With --wait the parent looks at the nodes before and after what is measured: prints "ready" and waits for a line.
void Ready(const Options& options);

// Prints the result, and with --wait waits until standard input ends. The databases should still be open.
void PrintResult(const Options& options, const std::string& json);

// What all results begin with, without the closing brace.
std::string ResultText(const Options& options, std::size_t transactions, double seconds);
std::string ResultText(const Options& options, const std::vector<float>& latencies, double seconds);

// Calls `transaction` for the asked time or count; the begin of the result.
template <class Transaction>
std::string Measure(const Options& options, Transaction transaction) {
  std::vector<float> latencies;
  latencies.reserve(options.count != 0 ? options.count : 1 << 20);
  Ready(options);
  const Clock::time_point start = Clock::now();
  const Clock::time_point end = start + FromSeconds(options.seconds);
  Clock::time_point now = start;
  while (options.count != 0 ? latencies.size() < options.count : now < end) {
    transaction();
    const Clock::time_point after = Clock::now();
    latencies.push_back(static_cast<float>(Microseconds(after - now)));
    now = after;
  }
  return ResultText(options, latencies, Seconds(now - start));
}

}  // namespace echofs::bench
