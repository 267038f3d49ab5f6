#include "cmd/mount_probe.h"

#include <fcntl.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "cmd/unique_fd.h"

namespace echofs::cmd {
namespace {

constexpr int kEndMillisMax = 1000;

// In the child. Its name tells it from the daemon, which has the guardian's.
[[noreturn]] void Probe(const char* path, pid_t parent) {
  ::prctl(PR_SET_NAME, "echofs-probe");
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);
  ::close_range(3, ~0U, 0);
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  std::array<char, 64> text;
  ::_exit(fd >= 0 && ::read(fd, text.data(), text.size()) > 0 ? 0 : 1);
}

}  // namespace

void MountProbe::Start() {
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child == 0) Probe(path_.c_str(), parent);
  if (child > 0) {
    pid_ = child;
  } else {
    spdlog::warn("cannot fork to look whether the mount answers: {}", std::strerror(errno));
  }
}

void MountProbe::Tick(Clock::time_point now) {
  if (!next_ || now < *next_) return;
  next_ = now + interval_;
  if (pid_ == 0) {
    Start();
    return;
  }
  // A process that waits for the daemon's answer may stay until that comes; no second one waits beside it.
  ::kill(pid_, SIGKILL);
  OnFailure();
}

void MountProbe::OnFailure() {
  if (failing_) return;
  failing_ = true;
  spdlog::error("{} cannot be read within {} s, so the watchdog is not answered", path_,
                std::chrono::duration<double>(interval_).count());
}

bool MountProbe::OnChildExit(pid_t pid, int wait_status) {
  if (pid_ == 0 || pid != pid_) return false;
  pid_ = 0;
  if (!next_) return false;
  if (wait_status != 0) {
    OnFailure();
    return false;
  }
  if (failing_) spdlog::info("{} can be read again", path_);
  failing_ = false;
  return true;
}

void MountProbe::Stop() {
  next_.reset();
  if (pid_ == 0) return;
  ::kill(pid_, SIGKILL);
  const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
  pollfd ended = {process.get(), POLLIN, 0};
  if (process.get() >= 0) ::poll(&ended, 1, kEndMillisMax);
}

}  // namespace echofs::cmd
