#include "cmd/mount_helper.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

namespace echofs::cmd {
namespace {

// A real-time signal: it is queued, and nobody sends it by habit.
int DaemonDiedSignal() { return SIGRTMIN + 5; }

// The signal of the daemon's death was seen to be missing now and then (Linux 6.18, one of ten times when
// a thread hung in its own mount), so the helper also looks. A wake-up costs microseconds.
constexpr int kLookMillis = 200;

// True when the process's main thread has ended, whether or not others hang. While they do, the process is not
// reaped, so the helper's parent stays the same; afterwards it changes.
bool HasEnded(pid_t process) {
  if (::getppid() != process) return true;
  std::array<char, 32> path;
  std::snprintf(path.data(), path.size(), "/proc/%d/stat", static_cast<int>(process));
  const int fd = ::open(path.data(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno == ENOENT;
  std::array<char, 256> text{};
  const ssize_t n = ::read(fd, text.data(), text.size() - 1);
  ::close(fd);
  // "PID (name) STATE ...": the name may hold anything, so from its last parenthesis on.
  const char* const end = n > 0 ? std::strrchr(text.data(), ')') : nullptr;
  return end != nullptr && (end[2] == 'Z' || end[2] == 'X');
}

// Where the helper's descriptors go; everything else is closed.
constexpr int kWatchFd = 3;
constexpr int kAliveFd = 4;

// Leaves the helper with nothing but its two descriptors, and nothing of the outer world.
void Isolate(int watch_fd, int alive_fd) {
  ::setsid();
  ::prctl(PR_SET_NAME, "echofs-helper");
  // Out of the way of the targets first.
  const int watch = ::fcntl(watch_fd, F_DUPFD, kAliveFd + 1);
  const int alive = ::fcntl(alive_fd, F_DUPFD, kAliveFd + 1);
  ::dup3(watch, kWatchFd, O_CLOEXEC);
  ::dup3(alive, kAliveFd, O_CLOEXEC);
  ::close_range(kAliveFd + 1, ~0U, 0);
  const int null = ::open("/dev/null", O_RDWR);
  for (int fd = 0; fd <= 2; ++fd) ::dup2(null, fd);
  ::close(null);
  if (::chdir("/") != 0) ::_exit(1);
}

// Returns when the mount must be removed; ends the process when it is gone already.
void Watch(pid_t daemon) {
  sigset_t signals;
  sigfillset(&signals);
  ::sigprocmask(SIG_SETMASK, &signals, nullptr);
  sigemptyset(&signals);
  sigaddset(&signals, DaemonDiedSignal());
  const int signal_fd = ::signalfd(-1, &signals, SFD_CLOEXEC);
  ::prctl(PR_SET_PDEATHSIG, DaemonDiedSignal());
  // Armed; a death before that shows in the first look.
  while (!HasEnded(daemon)) {
    std::array<pollfd, 2> fds = {{{kWatchFd, POLLIN, 0}, {signal_fd, POLLIN, 0}}};
    if (::poll(fds.data(), fds.size(), kLookMillis) > 0) break;
  }
  char byte = 0;
  pollfd watch = {kWatchFd, POLLIN, 0};
  if (::poll(&watch, 1, 0) == 1 && ::read(kWatchFd, &byte, 1) == 1 && byte == kHelperDismissed) {
    ::_exit(0);
  }
}

}  // namespace

absl::Status StartMountHelper(const MountRef& mount, int watch_fd, int alive_fd) {
  const pid_t daemon = ::getpid();
  const pid_t helper = ::fork();
  if (helper < 0) {
    return absl::InternalError(fmt::format("cannot fork: {}", std::strerror(errno)));
  }
  if (helper > 0) return absl::OkStatus();
  Isolate(watch_fd, alive_fd);
  Watch(daemon);
  AbortAndDetach(mount);
  ::_exit(0);
}

}  // namespace echofs::cmd
