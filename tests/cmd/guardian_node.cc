#include "tests/cmd/guardian_node.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <fstream>

#include "cmd/mount_table.h"

namespace echofs::cmd::test {

bool IsMounted(const std::string& mount_point) {
  return FindMountOn(ReadMountTable(), mount_point).has_value();
}

std::optional<int> WaitForExit(pid_t pid) {
  int status = 0;
  if (!WaitFor([&] { return ::waitpid(pid, &status, WNOHANG) == pid; })) return std::nullopt;
  return ShellExitCode(status);
}

GuardianNode::GuardianNode() : mount_point_(dir_.path() + "/a mount") {
  REQUIRE(::mkdir(mount_point_.c_str(), 0755) == 0);
  options_.config.fuse.dir = mount_point_;
  daemon_options_.pid_file = dir_.path() + "/daemon.pid";
  daemon_options_.marker = dir_.path() + "/marker";
}

GuardianNode::~GuardianNode() {
  if (guardian_ > 0) ::kill(guardian_, SIGKILL);
  if (const int pid = daemon_pid(); pid > 0 && guardian_ > 0) ::kill(pid, SIGKILL);
  if (guardian_ > 0) ::waitpid(guardian_, nullptr, 0);
  while (IsMounted(mount_point_) && ::umount2(mount_point_.c_str(), MNT_DETACH) == 0) {
  }
}

void GuardianNode::Start(uid_t uid) {
  ::unlink(daemon_options_.pid_file.c_str());
  std::fflush(nullptr);  // what Catch has buffered is not to be written twice
  guardian_ = ::fork();
  if (guardian_ != 0) return;
  const int log = ::open(log_path().c_str(), O_CREAT | O_WRONLY | O_APPEND, 0666);
  ::dup2(log, STDERR_FILENO);
  ::dup2(log, STDOUT_FILENO);
  if (uid != 0 && (::setgroups(0, nullptr) != 0 || ::setgid(uid) != 0 || ::setuid(uid) != 0)) {
    ::_exit(99);
  }
  ::_exit(RunGuardian(options_, [this](const DaemonContext& context) {
    return RunTestDaemon(context, daemon_options_);
  }));
}

bool GuardianNode::WaitUntilReady() {
  return WaitFor(
      [this] { return daemon_pid() > 0 && ReadFile(mount_point_ + "/hello") == "hello\n"; });
}

std::optional<int> GuardianNode::WaitForEnd() {
  const std::optional<int> code = WaitForExit(guardian_);
  if (code) guardian_ = 0;
  return code;
}

pid_t GuardianNode::StartClient(const std::string& name, bool hold) {
  const pid_t client = ::fork();
  if (client != 0) return client;
  const int fd = ::open((mount_point_ + "/" + name).c_str(), O_RDONLY);
  if (fd < 0) ::_exit(errno);
  std::ofstream(daemon_options_.marker) << "x" << std::flush;
  if (!hold) ::_exit(0);
  for (;;) ::pause();
}

bool GuardianNode::WaitForMarker() {
  return WaitFor([this] { return ::access(daemon_options_.marker.c_str(), F_OK) == 0; });
}

bool GuardianNode::WaitUntilGone(std::chrono::steady_clock::duration* took) {
  const auto begin = std::chrono::steady_clock::now();
  const bool gone = WaitFor([this] { return !IsMounted(mount_point_); });
  *took = std::chrono::steady_clock::now() - begin;
  return gone;
}

int GuardianNode::daemon_pid() const {
  const std::string text = ReadFile(daemon_options_.pid_file);
  return text.empty() ? 0 : std::stoi(text);
}

}  // namespace echofs::cmd::test
