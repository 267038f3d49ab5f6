// Where a thread that serves FUSE requests runs (design section 1).
//
// Waking an idle CPU costs an application that waits for its write ten times what a switch on its own CPU
// costs. So a thread that serves writes does two things:
//   follow  it pins itself to the CPU on which its client last ran;
//   yield   it runs under SCHED_IDLE: the scheduler counts a CPU that runs only such threads as idle, and so
//           leaves the client, once it has its reply, on the CPU where its data are warm.
// A SCHED_IDLE thread starves beside others that want the CPU. The kernel tells how long it waited
// (run_delay in schedstat); when that is too long it becomes an ordinary thread and tries again later.
#pragma once

#include <sched.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "absl/time/time.h"

namespace echofs::fs {

enum class PlacementMode {
  kOff,     // threads run where the scheduler puts them
  kFollow,  // without SCHED_IDLE
  kFull,
};

// kFull, or what the environment variable ECHOFS_THREAD_PLACEMENT asks for: off, follow. kFollow at most when
// this process may not leave SCHED_IDLE again (an ordinary user without RLIMIT_NICE).
PlacementMode PlacementModeOfProcess();

// The CPU on which a thread last ran, from the text of /proc/TID/stat; -1 when the text is not understood.
int CpuOfStat(std::string_view stat);

// Whether the calling thread should stay SCHED_IDLE. Pure arithmetic; one thread.
class StarvationMeter {
 public:
  // `run_delay`: time that the thread has waited for a CPU in its life; `requests` since the last call.
  // True when it may be SCHED_IDLE from now on.
  bool MayBeIdle(absl::Duration run_delay, std::uint32_t requests, absl::Time now);
  // Requests after which to ask again: few, since each of them may take a starving thread milliseconds.
  static constexpr std::uint32_t kInterval = 8;

 private:
  void StartWindow();

  absl::Duration last_run_delay_;
  absl::Duration window_waited_;
  std::uint32_t window_requests_ = 0;
  bool idle_ = true;
  absl::Time since_ = absl::InfinitePast();  // idle_ is what it is
  absl::Duration pause_;                     // the last one
};

// Of one thread, made and used in it.
class ThreadPlacement {
 public:
  explicit ThreadPlacement(PlacementMode mode);
  ~ThreadPlacement();
  ThreadPlacement(const ThreadPlacement&) = delete;
  ThreadPlacement& operator=(const ThreadPlacement&) = delete;

  // Before a request is served: its bytes as they came from the kernel.
  void OnRequest(const void* request, std::size_t size);

 private:
  void Follow(pid_t client);
  void Release();
  void SetIdle(bool idle);
  void CheckStarvation();

  const PlacementMode mode_;
  cpu_set_t allowed_;            // of the thread as it was made
  int schedstat_ = -1;           // descriptor, open while mode_ is kFull
  int cpu_ = -1;                 // pinned to; -1: not pinned
  pid_t client_ = 0;             // whose CPU that is
  std::uint32_t writes_ = 0;     // of client_, since its CPU was looked up
  std::uint32_t others_ = 0;     // requests since the last write
  bool idle_ = false;            // SCHED_IDLE now
  std::uint32_t unchecked_ = 0;  // requests since CheckStarvation
  StarvationMeter meter_;
};

}  // namespace echofs::fs
