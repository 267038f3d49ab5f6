// A child process that a command of echofs stands in for: it gets the signals, and its exit code is
// the command's.
//
// The waiting process has one thread, so that a signal finds it in Wait and nowhere else.
#pragma once

#include <sys/types.h>

#include <csignal>

namespace echofs::cmd {

// From construction to the end of the process, signals that end a program (SIGINT, SIGTERM, SIGHUP)
// or that programs give a meaning (SIGUSR1, SIGUSR2) wait for Wait. One thread.
class Foreground {
 public:
  Foreground();

  // What a child starts with: the mask of before.
  const sigset_t& child_mask() const { return original_mask_; }

  // Waits for the end of a child and passes signals on to it meanwhile; returns its status as
  // waitpid gives it. What a terminal sends, the child has got already.
  int Wait(pid_t child) const;

 private:
  sigset_t signals_;
  sigset_t original_mask_;
};

}  // namespace echofs::cmd
