#include "cmd/foreground.h"

#include <sys/wait.h>

#include "replication/status_macros.h"

namespace echofs::cmd {

Foreground::Foreground() {
  sigemptyset(&signals_);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD}) {
    sigaddset(&signals_, signal);
  }
  // Whoever ignores it gets no status of its children.
  ::signal(SIGCHLD, SIG_DFL);
  ECHOFS_CHECK(::sigprocmask(SIG_BLOCK, &signals_, &original_mask_) == 0);
}

int Foreground::Wait(pid_t child) const {
  while (true) {
    int status = 0;
    if (::waitpid(child, &status, WNOHANG) == child) return status;
    siginfo_t info;
    const int signal = ::sigwaitinfo(&signals_, &info);
    const bool from_terminal = info.si_code == SI_KERNEL;
    if (signal > 0 && signal != SIGCHLD && !from_terminal) ::kill(child, signal);
  }
}

}  // namespace echofs::cmd
