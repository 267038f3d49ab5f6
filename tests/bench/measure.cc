#include "tests/bench/measure.h"

#include <algorithm>
#include <cstdio>
#include <utility>

namespace echofs::bench {

std::string Percentiles(std::vector<float> values) {
  if (values.empty()) Die("nothing was measured");
  std::sort(values.begin(), values.end());
  const auto at = [&values](double p) {
    return values[static_cast<std::size_t>(p * static_cast<double>(values.size() - 1))];
  };
  char text[160];
  std::snprintf(text, sizeof(text),
                R"({"p50": %.1f, "p90": %.1f, "p99": %.1f, "p999": %.1f, "max": %.1f})", at(0.5),
                at(0.9), at(0.99), at(0.999), values.back());
  return text;
}

void Ready(const Options& options) {
  if (!options.wait) return;
  std::printf("ready\n");
  std::fflush(stdout);
  if (std::getchar() != '\n') Die("the parent has ended");
}

void PrintResult(const Options& options, const std::string& json) {
  std::printf("%s\n", json.c_str());
  std::fflush(stdout);
  while (options.wait && std::getchar() != EOF) {
  }
}

std::string ResultText(const Options& options, std::size_t transactions, double seconds) {
  char text[200];
  std::snprintf(text, sizeof(text),
                R"({"workload": "%s", "transactions": %zu, "seconds": %.6f, "per_second": %.6g)",
                options.workload.c_str(), transactions, seconds,
                static_cast<double>(transactions) / seconds);
  return text;
}

std::string ResultText(const Options& options, const std::vector<float>& latencies,
                       double seconds) {
  return ResultText(options, latencies.size(), seconds) + R"(, "latency_us": )" +
         Percentiles(latencies);
}

}  // namespace echofs::bench
