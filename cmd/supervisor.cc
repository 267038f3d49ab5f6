#include "cmd/supervisor.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "cmd/unique_fd.h"
#include "replication/status_macros.h"

namespace echofs::cmd {
namespace {

constexpr int kExitNotFound = 127;
constexpr int kExitNotExecutable = 126;

}  // namespace

int ShellExitCode(int wait_status) {
  return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

Supervisor::Supervisor(std::vector<std::string> command, const sigset_t& signal_mask,
                       std::chrono::milliseconds grace)
    : command_(std::move(command)), signal_mask_(signal_mask), grace_(grace) {
  ECHOFS_CHECK(!command_.empty());
}

// In the child. Writes errno to `error_fd`, which closes itself when the command runs.
void Supervisor::Exec(int error_fd, pid_t parent) const {
  std::vector<char*> argv;
  argv.reserve(command_.size() + 1);
  for (const std::string& argument : command_) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(kExitNotExecutable);
  ::sigprocmask(SIG_SETMASK, &signal_mask_, nullptr);
  ::execvp(argv[0], argv.data());
  const int error = errno;
  while (::write(error_fd, &error, sizeof(error)) < 0 && errno == EINTR) {
  }
  ::_exit(kExitNotExecutable);
}

absl::Status Supervisor::Start() {
  exit_code_ = kExitNotExecutable;
  std::array<int, 2> fds;
  if (::pipe2(fds.data(), O_CLOEXEC) != 0) {
    return absl::InternalError(fmt::format("cannot make a pipe: {}", std::strerror(errno)));
  }
  const UniqueFd read_end(fds[0]);
  UniqueFd write_end(fds[1]);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) return absl::InternalError(fmt::format("cannot fork: {}", std::strerror(errno)));
  if (child == 0) Exec(write_end.get(), parent);
  write_end.Reset();
  int error = 0;
  ssize_t got = 0;
  do {
    got = ::read(read_end.get(), &error, sizeof(error));
  } while (got < 0 && errno == EINTR);
  if (got == 0) {
    pid_ = child;
    return absl::OkStatus();
  }
  while (::waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  if (error == ENOENT) exit_code_ = kExitNotFound;
  return absl::NotFoundError(
      fmt::format("cannot run the command {}: {}", command_[0], std::strerror(error)));
}

void Supervisor::Forward(int signal) const {
  if (running()) ::kill(pid_, signal);
}

void Supervisor::Stop(int signal, Clock::time_point now) {
  if (!running()) return;
  if (signal != 0) Forward(signal);
  if (!deadline_) deadline_ = now + grace_;
}

std::optional<Supervisor::Clock::time_point> Supervisor::deadline() const {
  return running() ? deadline_ : std::nullopt;
}

void Supervisor::Tick(Clock::time_point now) {
  if (!running() || !deadline_ || now < *deadline_) return;
  spdlog::warn("the command {} did not end within {} s after it was asked to; it is killed",
               command_[0], std::chrono::duration<double>(grace_).count());
  Forward(SIGKILL);
  deadline_.reset();
}

bool Supervisor::OnChildExit(pid_t pid, int wait_status) {
  if (!running() || pid != pid_) return false;
  pid_ = 0;
  exit_code_ = ShellExitCode(wait_status);
  return true;
}

}  // namespace echofs::cmd
