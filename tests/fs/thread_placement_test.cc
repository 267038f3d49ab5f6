#include "fs/thread_placement.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#include "tests/catch.h"

namespace echofs::fs {
namespace {

constexpr absl::Duration kQuick = absl::Microseconds(3);  // a switch on the same CPU
constexpr absl::Duration kStarved = absl::Milliseconds(1);

std::string OwnStat() {
  std::ifstream file("/proc/thread-self/stat");
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST_CASE("the CPU of a thread is read from its stat line, whatever its name is") {
  std::string fields;
  for (int i = 3; i < 39; ++i) fields += " " + std::to_string(i);
  CHECK(CpuOfStat("12 (sqlite3)" + fields + " 7 40 41") == 7);
  CHECK(CpuOfStat("12 (a) R 1 (b c)" + fields + " 5 40") == 5);
  CHECK(CpuOfStat("12 (sqlite3)" + fields) == -1);
  CHECK(CpuOfStat("12 (sqlite3)" + fields + " x") == -1);
  CHECK(CpuOfStat("") == -1);

  std::atomic<int> cpu = -1;
  std::thread([&cpu] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    if (sched_setaffinity(0, sizeof(one), &one) == 0) cpu = sched_getcpu() - CpuOfStat(OwnStat());
  }).join();
  CHECK(cpu == 0);
}

TEST_CASE("a thread that gets the CPU at once stays SCHED_IDLE") {
  StarvationMeter meter;
  absl::Time now = absl::UnixEpoch();
  absl::Duration run_delay;
  for (int i = 0; i < 100; ++i) {
    const std::uint32_t requests = meter.interval();
    run_delay += kQuick * requests;
    now += absl::Milliseconds(1);
    CHECK(meter.MayBeIdle(run_delay, requests, now));
  }
}

TEST_CASE("a thread that starves is an ordinary one, and tries again ever more seldom") {
  StarvationMeter meter;
  absl::Time now = absl::UnixEpoch();
  absl::Duration run_delay;
  absl::Duration last_pause;
  for (int i = 0; i < 6; ++i) {
    run_delay += kStarved * meter.interval();
    REQUIRE_FALSE(meter.MayBeIdle(run_delay, meter.interval(), now));
    const absl::Time begin = now;
    while (!meter.MayBeIdle(run_delay, 1, now)) {
      now += absl::Milliseconds(1);
      REQUIRE(now - begin < absl::Minutes(1));
    }
    CHECK(now - begin > last_pause);
    last_pause = now - begin;
    CHECK(meter.interval() < 10);  // to find out soon
  }
}

}  // namespace
}  // namespace echofs::fs
