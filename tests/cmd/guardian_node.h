// A guardian with the test daemon, in processes of their own, for the tests of the guardian. Needs root and /dev/fuse.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>

#include "cmd/guardian.h"
#include "tests/cmd/test_daemon.h"
#include "tests/cmd/test_util.h"

namespace echofs::cmd::test {

bool IsMounted(const std::string& mount_point);

// Waits for a child, returns its exit code as a shell reports it; nothing when it does not end.
std::optional<int> WaitForExit(pid_t pid);

class GuardianNode {
 public:
  GuardianNode();
  ~GuardianNode();
  GuardianNode(const GuardianNode&) = delete;
  GuardianNode& operator=(const GuardianNode&) = delete;

  // `uid`: who runs it.
  void Start(uid_t uid = 0);
  bool WaitUntilReady();
  // Exit code; nothing when it does not end.
  std::optional<int> WaitForEnd();

  // A process that opens `name` in the mount. It ends with errno, or 0; with `hold`, it keeps the
  // file open until it is killed.
  pid_t StartClient(const std::string& name, bool hold = false);
  bool WaitForMarker();
  bool WaitUntilGone(std::chrono::steady_clock::duration* took);

  int daemon_pid() const;
  pid_t guardian() const { return guardian_; }
  const std::string& mount_point() const { return mount_point_; }
  const std::string& dir() const { return dir_.path(); }
  std::string log_path() const { return dir_.path() + "/log"; }
  std::string log() const { return ReadFile(log_path()); }
  GuardianOptions& options() { return options_; }
  TestDaemonOptions& daemon_options() { return daemon_options_; }

 private:
  const TempDir dir_;
  const std::string mount_point_;
  GuardianOptions options_;
  TestDaemonOptions daemon_options_;
  pid_t guardian_ = 0;
};

}  // namespace echofs::cmd::test
