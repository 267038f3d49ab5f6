// Runs a command: the one given after "--" of `echofs mount` or `echofs run`, or one of `exec`.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <csignal>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace echofs::cmd {

// How long the command may take to end after it was asked to, before it is killed.
inline constexpr std::chrono::seconds kCommandGrace{10};

// Exit code that a shell would report for a status of waitpid: 128 + signal for a killed process.
int ShellExitCode(int wait_status);

// One child process. Lives in a single-threaded process, such as the guardian: the command gets
// SIGTERM when that dies. One thread; the owner reaps children and reports the status here.
class Supervisor {
 public:
  using Clock = std::chrono::steady_clock;

  // `signal_mask` is what the command starts with.
  Supervisor(std::vector<std::string> command, const sigset_t& signal_mask,
             std::chrono::milliseconds grace);

  // Starts the command. When that fails the error says why and exit_code() is what a shell would
  // give: 127 not found, 126 not executable.
  absl::Status Start();

  bool running() const { return pid_ > 0; }
  // While it runs, else 0.
  pid_t pid() const { return pid_; }
  // After the command has ended or could not be started.
  int exit_code() const { return exit_code_; }

  // Passes a signal on.
  void Forward(int signal) const;
  // The command should end now: forwards `signal` unless it is 0, and from now on its time runs.
  // Calling it again changes nothing but forwards.
  void Stop(int signal, Clock::time_point now);
  // When Tick is to be called at the latest; nothing while no time runs.
  std::optional<Clock::time_point> deadline() const;
  // Kills a command whose time is over.
  void Tick(Clock::time_point now);

  // Takes the status of a reaped child; true when it was the command.
  bool OnChildExit(pid_t pid, int wait_status);

 private:
  [[noreturn]] void Exec(int error_fd, pid_t parent) const;

  const std::vector<std::string> command_;
  const sigset_t signal_mask_;
  const std::chrono::milliseconds grace_;
  pid_t pid_ = 0;
  int exit_code_ = 0;
  std::optional<Clock::time_point> deadline_;
};

}  // namespace echofs::cmd
