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

constexpr absl::Duration kQuick = absl::Microseconds(30);  // a switch on the same CPU
constexpr absl::Duration kStarved = absl::Milliseconds(30);

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
    const std::uint32_t requests = StarvationMeter::kInterval;
    run_delay += kQuick * requests;
    now += absl::Milliseconds(1);
    CHECK(meter.MayBeIdle(run_delay, requests, now));
  }
}

TEST_CASE("a thread that waits for long now and then stays SCHED_IDLE") {
  StarvationMeter meter;
  absl::Time now = absl::UnixEpoch();
  absl::Duration run_delay;
  for (int i = 0; i < 200; ++i) {
    const std::uint32_t requests = StarvationMeter::kInterval;
    run_delay += kQuick * requests;
    if (i % 20 == 0) run_delay += absl::Milliseconds(15);
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
    run_delay += kStarved;
    REQUIRE_FALSE(meter.MayBeIdle(run_delay, StarvationMeter::kInterval, now));
    const absl::Time begin = now;
    while (!meter.MayBeIdle(run_delay, 1, now)) {
      now += absl::Milliseconds(1);
      REQUIRE(now - begin < absl::Minutes(2));
    }
    CHECK(now - begin > last_pause);
    last_pause = now - begin;
  }
}

TEST_CASE("after a long good time, a thread that starves tries again soon") {
  StarvationMeter meter;
  absl::Time now = absl::UnixEpoch();
  absl::Duration run_delay;
  const auto starve = [&] {
    run_delay += kStarved;
    REQUIRE_FALSE(meter.MayBeIdle(run_delay, StarvationMeter::kInterval, now));
    const absl::Time begin = now;
    while (!meter.MayBeIdle(run_delay, 1, now)) now += absl::Milliseconds(10);
    return now - begin;
  };
  const absl::Duration first = starve();
  CHECK(starve() > first);
  now += absl::Minutes(10);
  CHECK(starve() == first);
}

}  // namespace
}  // namespace echofs::fs
