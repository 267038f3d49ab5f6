#include "fs/thread_placement.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <string>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "fs/proc_stat.h"

namespace echofs::fs {
namespace {

constexpr std::uint32_t kLookupInterval = 128;  // writes of one client
// After so many requests in a row that are no writes, the thread is an ordinary one again.
constexpr std::uint32_t kReleaseAfter = 64;
// A thread starves that has waited for a CPU longer than this for at most so many requests. Without others a request waits
// for its client alone, until that sleeps: 12 to 30 us were measured. A thread that works for some milliseconds may be in
// the way now and then; beside one that always works, each request waits for milliseconds.
constexpr absl::Duration kRunDelayMax = absl::Milliseconds(25);
constexpr std::uint32_t kRunDelayRequests = 128;
// How long a thread that starved is an ordinary one before it tries again.
constexpr absl::Duration kPauseMin = absl::Seconds(1);
constexpr absl::Duration kPauseMax = absl::Minutes(1);
constexpr int kCpuField = 39;  // of /proc/TID/stat, counted from 1

bool SetPolicy(int policy) {
  const sched_param parameters{};
  return sched_setscheduler(0, policy, &parameters) == 0;
}

bool MayLeaveIdle() {
  bool may = false;
  std::thread([&may] { may = SetPolicy(SCHED_IDLE) && SetPolicy(SCHED_OTHER); }).join();
  return may;
}

// Up to `size` bytes of a small file of /proc.
std::string_view ReadSome(int descriptor, char* buffer, std::size_t size) {
  const ssize_t n = pread(descriptor, buffer, size, 0);
  return {buffer, n < 0 ? 0 : static_cast<std::size_t>(n)};
}

}  // namespace

PlacementMode PlacementModeOfProcess() {
  const char* const value = std::getenv("ECHOFS_THREAD_PLACEMENT");
  const std::string_view wanted = value == nullptr ? "" : value;
  if (wanted == "off") return PlacementMode::kOff;
  if (wanted == "follow" || !MayLeaveIdle()) return PlacementMode::kFollow;
  return PlacementMode::kFull;
}

int CpuOfStat(std::string_view stat) {
  const std::string_view text = ProcStatField(stat, kCpuField);
  int cpu = -1;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), cpu);
  return result.ec == std::errc() && cpu >= 0 ? cpu : -1;
}

void StarvationMeter::StartWindow() {
  window_waited_ = absl::ZeroDuration();
  window_requests_ = 0;
}

bool StarvationMeter::MayBeIdle(absl::Duration run_delay, std::uint32_t requests, absl::Time now) {
  const absl::Duration waited = run_delay - last_run_delay_;
  last_run_delay_ = run_delay;
  if (!idle_) {
    if (now < since_ + pause_) return false;
    idle_ = true;
    since_ = now;
    return true;
  }
  window_waited_ += waited;
  window_requests_ += requests;
  if (window_waited_ <= kRunDelayMax) {
    if (window_requests_ >= kRunDelayRequests) StartWindow();
    return true;
  }
  StartWindow();
  // Only a long good time makes up for the last bad one.
  const bool was_good = now - since_ > std::max(pause_, kPauseMin);
  pause_ = was_good ? kPauseMin : std::clamp(pause_ * 2, kPauseMin, kPauseMax);
  idle_ = false;
  since_ = now;
  return false;
}

ThreadPlacement::ThreadPlacement(PlacementMode mode) : mode_(mode) {
  CPU_ZERO(&allowed_);
  sched_getaffinity(0, sizeof(allowed_), &allowed_);
  if (mode_ == PlacementMode::kFull) {
    schedstat_ = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
  }
}

ThreadPlacement::~ThreadPlacement() {
  if (schedstat_ >= 0) close(schedstat_);
}

void ThreadPlacement::OnRequest(const void* request, std::size_t size) {
  if (mode_ == PlacementMode::kOff || size < sizeof(fuse_in_header)) return;
  const auto* const header = static_cast<const fuse_in_header*>(request);
  if (header->opcode != FUSE_WRITE) {
    if (cpu_ >= 0 && ++others_ >= kReleaseAfter) Release();
  } else {
    others_ = 0;
    // A thread; 0 when it is in a process namespace that this process does not see.
    const auto client = static_cast<pid_t>(header->pid);
    if (client > 0 && (client != client_ || ++writes_ >= kLookupInterval)) Follow(client);
  }
  if (cpu_ >= 0 && schedstat_ >= 0 && ++unchecked_ >= StarvationMeter::kInterval) CheckStarvation();
}

void ThreadPlacement::Follow(pid_t client) {
  client_ = client;
  writes_ = 0;
  const int cpu = CpuOfStat(ReadProcStat(client));
  if (cpu < 0 || cpu == cpu_ || cpu >= CPU_SETSIZE || !CPU_ISSET(cpu, &allowed_)) return;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  if (sched_setaffinity(0, sizeof(one), &one) == 0) cpu_ = cpu;
}

void ThreadPlacement::Release() {
  sched_setaffinity(0, sizeof(allowed_), &allowed_);
  SetIdle(false);
  cpu_ = -1;
  client_ = 0;
}

void ThreadPlacement::SetIdle(bool idle) {
  if (idle != idle_ && SetPolicy(idle ? SCHED_IDLE : SCHED_OTHER)) idle_ = idle;
}

void ThreadPlacement::CheckStarvation() {
  char buffer[128];
  const std::string_view text = ReadSome(schedstat_, buffer, sizeof(buffer));
  const std::size_t space = text.find(' ');
  std::uint64_t run_delay = 0;  // nanoseconds; the second number
  if (space == std::string_view::npos ||
      std::from_chars(text.data() + space + 1, text.data() + text.size(), run_delay).ec !=
          std::errc()) {
    SetIdle(false);
    return;
  }
  SetIdle(
      meter_.MayBeIdle(absl::Nanoseconds(run_delay), std::exchange(unchecked_, 0), absl::Now()));
}

}  // namespace echofs::fs
