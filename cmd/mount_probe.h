// Finds out, again and again, whether a mount still answers: a child process reads a file in it, so that only the
// child hangs when nobody does.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>

namespace echofs::cmd {

// For a single-threaded process, such as the guardian. The owner calls Tick when deadline() has come and reports
// reaped children. The probe's process dies with the owner's; the owner calls Stop before it unmounts.
class MountProbe {
 public:
  using Clock = std::chrono::steady_clock;

  // `path`: a file in the mount whose open and read go to the daemon. Every `interval` one probe; one that takes
  // longer is killed, and has failed.
  MountProbe(std::string path, std::chrono::microseconds interval, Clock::time_point now)
      : path_(std::move(path)), interval_(interval), next_(now) {}

  // When Tick is to be called; nothing after Stop.
  std::optional<Clock::time_point> deadline() const { return next_; }
  void Tick(Clock::time_point now);

  // Takes the status of a reaped child; true when it was a probe that read the file.
  bool OnChildExit(pid_t pid, int wait_status);

  // Ends the probe that runs, waits a moment for its end, and starts no other one.
  void Stop();

 private:
  void Start();
  void OnFailure();

  const std::string path_;
  const std::chrono::microseconds interval_;
  std::optional<Clock::time_point> next_;
  pid_t pid_ = 0;         // the probe that runs, or 0
  bool failing_ = false;  // the last one failed, and the log says so
};

}  // namespace echofs::cmd
