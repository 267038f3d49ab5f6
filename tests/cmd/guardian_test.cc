// The process structure of design section 1: whoever dies, and however, the mount is gone within a
// moment and nothing hangs. Needs root and /dev/fuse.
#include "cmd/guardian.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <fstream>

#include "cmd/fuse_mount.h"
#include "tests/cmd/guardian_node.h"

namespace echofs::cmd {
namespace {

using test::HasText;
using test::IsMounted;
using test::ReadFile;
using test::WaitFor;
using test::WaitForExit;
using Node = test::GuardianNode;

constexpr uid_t kNobody = 65534;
// The promise is a second; the rest is for a machine that is busy with other tests.
constexpr std::chrono::seconds kGoneLimit{20};

TEST_CASE("guardian: SIGTERM ends in order, without a helper left") {
  Node node;
  node.Start();
  REQUIRE(node.WaitUntilReady());
  const int daemon = node.daemon_pid();
  ::kill(node.guardian(), SIGTERM);
  CHECK(node.WaitForEnd() == 0);
  CHECK_FALSE(IsMounted(node.mount_point()));
  CHECK_FALSE(test::IsAlive(daemon));
  CHECK_THAT(node.log(), Catch::Matchers::Equals(""));
}

TEST_CASE("guardian: SIGKILL of the daemon removes the mount and ends what hangs in it") {
  Node node;
  node.Start();
  REQUIRE(node.WaitUntilReady());
  const pid_t client = node.StartClient("hang");
  REQUIRE(node.WaitForMarker());
  ::kill(node.daemon_pid(), SIGKILL);
  std::chrono::steady_clock::duration took;
  REQUIRE(node.WaitUntilGone(&took));
  CHECK(took < kGoneLimit);
  const std::optional<int> error = WaitForExit(client);
  CHECK((error == ECONNABORTED || error == ENOTCONN));
  CHECK(node.WaitForEnd() == 128 + SIGKILL);
  CHECK_THAT(node.log(), HasText("killed by signal 9"));
}

TEST_CASE("guardian: SIGKILL of a daemon with a thread that hangs in its own mount") {
  Node node;
  node.daemon_options().open_own_file = true;
  node.Start();
  REQUIRE(node.WaitUntilReady());
  REQUIRE(node.WaitForMarker());
  const int daemon = node.daemon_pid();
  ::kill(daemon, SIGKILL);
  std::chrono::steady_clock::duration took;
  REQUIRE(node.WaitUntilGone(&took));
  CHECK(took < kGoneLimit);
  CHECK(node.WaitForEnd() == 128 + SIGKILL);
  CHECK_FALSE(test::IsAlive(daemon));
}

TEST_CASE("guardian: SIGKILL of the guardian removes the mount and ends the daemon") {
  Node node;
  node.Start();
  REQUIRE(node.WaitUntilReady());
  const int daemon = node.daemon_pid();
  const pid_t client = node.StartClient("hang");
  REQUIRE(node.WaitForMarker());
  ::kill(node.guardian(), SIGKILL);
  std::chrono::steady_clock::duration took;
  REQUIRE(node.WaitUntilGone(&took));
  CHECK(took < kGoneLimit);
  const std::optional<int> error = WaitForExit(client);
  CHECK((error == ECONNABORTED || error == ENOTCONN));
  CHECK(WaitFor([&] { return !test::IsAlive(daemon); }));
  CHECK(node.WaitForEnd() == 128 + SIGKILL);
}

TEST_CASE("guardian: SIGKILL of guardian and daemon at once leaves the helper to clean up") {
  Node node;
  node.daemon_options().open_own_file = true;
  node.Start();
  REQUIRE(node.WaitUntilReady());
  REQUIRE(node.WaitForMarker());
  const int daemon = node.daemon_pid();
  ::kill(node.guardian(), SIGKILL);
  ::kill(daemon, SIGKILL);
  std::chrono::steady_clock::duration took;
  REQUIRE(node.WaitUntilGone(&took));
  CHECK(took < kGoneLimit);
  CHECK(WaitFor([&] { return !test::IsAlive(daemon); }));
}

TEST_CASE("guardian: a mount in use is detached with a warning that names the process") {
  Node node;
  node.Start();
  REQUIRE(node.WaitUntilReady());
  const pid_t client = node.StartClient("hello", /*hold=*/true);
  REQUIRE(node.WaitForMarker());
  ::kill(node.guardian(), SIGTERM);
  CHECK(node.WaitForEnd() == 0);
  CHECK_FALSE(IsMounted(node.mount_point()));
  CHECK_THAT(node.log(), HasText("still in use by process " + std::to_string(client)));
  CHECK_THAT(node.log(), HasText("/a mount/hello"));
  ::kill(client, SIGKILL);
  CHECK(WaitForExit(client) == 128 + SIGKILL);
}

TEST_CASE("guardian: a daemon that fails to start leaves no mount") {
  Node node;
  GuardianOptions options;
  options.config.fuse.dir = node.mount_point();
  CHECK(RunGuardian(options, [](const DaemonContext&) { return 3; }) == 3);
  CHECK_FALSE(IsMounted(node.mount_point()));
}

TEST_CASE("guardian: a dead mount of an earlier run is cleared, a live one is refused") {
  Node node;
  // The descriptor closes at once: a mount without a daemon.
  REQUIRE(MountFuse(node.mount_point(), true).ok());
  REQUIRE(IsMounted(node.mount_point()));
  node.Start();
  REQUIRE(node.WaitUntilReady());
  CHECK_THAT(node.log(), HasText("removed the dead mount"));

  const absl::StatusOr<std::string> second = PrepareMountDirectory(node.mount_point());
  CHECK(absl::IsAlreadyExists(second.status()));
  ::kill(node.guardian(), SIGTERM);
  CHECK(node.WaitForEnd() == 0);
}

TEST_CASE("guardian: directories that cannot be mounted on are clear errors") {
  const test::TempDir dir;
  const auto error = [](const std::string& path) {
    return std::string(PrepareMountDirectory(path).status().message());
  };
  CHECK_THAT(error(dir.path() + "/none"), HasText("does not exist; create it"));
  CHECK_THAT(error(dir.path() + "/none/none"), HasText("does not exist; create it"));
  std::ofstream(dir.path() + "/file") << "x";
  CHECK_THAT(error(dir.path() + "/file"), HasText("is not a directory"));
  CHECK_THAT(error(dir.path()), HasText("is not empty (there is 'file')"));
  CHECK_THAT(error("/"), HasText("cannot be the mount directory"));
  REQUIRE(::mkdir((dir.path() + "/empty").c_str(), 0755) == 0);
  REQUIRE(::symlink("empty", (dir.path() + "/link").c_str()) == 0);
  CHECK(*PrepareMountDirectory(dir.path() + "/link") == dir.path() + "/empty");

  GuardianOptions options;
  options.config.fuse.dir = dir.path();
  CHECK(RunGuardian(options, [](const DaemonContext&) { return 0; }) == 1);
}

TEST_CASE("guardian: aborting a mount that is gone does not touch its successor") {
  Node node;
  absl::StatusOr<FuseMount> first = MountFuse(node.mount_point(), true);
  REQUIRE(first.ok());
  MountRef other = first->ref;
  other.mount_point += "x";
  AbortAndDetach(other);
  CHECK(IsMounted(node.mount_point()));
  AbortAndDetach(first->ref);
  CHECK_FALSE(IsMounted(node.mount_point()));
  AbortAndDetach(first->ref);
}

// Lets everybody open /dev/fuse, as udev does on most systems.
class OpenDevFuse {
 public:
  OpenDevFuse() : lock_(::open("/dev/fuse", O_RDONLY | O_CLOEXEC)) {
    REQUIRE(::flock(lock_, LOCK_EX) == 0);  // such tests may run at the same time
    struct stat before {};
    REQUIRE(::stat("/dev/fuse", &before) == 0);
    mode_ = before.st_mode & 07777;
    REQUIRE(::chmod("/dev/fuse", 0666) == 0);
  }
  ~OpenDevFuse() {
    ::chmod("/dev/fuse", mode_);
    ::flock(lock_, LOCK_UN);
    ::close(lock_);
  }
  OpenDevFuse(const OpenDevFuse&) = delete;
  OpenDevFuse& operator=(const OpenDevFuse&) = delete;

 private:
  const int lock_;
  mode_t mode_ = 0;
};

// Whether user nobody can read the file; root cannot look into a user's mount.
bool NobodyReads(const std::string& path) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setgid(kNobody) != 0 || ::setuid(kNobody) != 0) ::_exit(1);
    ::_exit(ReadFile(path) == "hello\n" ? 0 : 1);
  }
  return WaitForExit(child) == 0;
}

TEST_CASE("guardian: an ordinary user mounts through fusermount3") {
  const OpenDevFuse open_device;
  Node node;
  REQUIRE(::chown(node.mount_point().c_str(), kNobody, kNobody) == 0);
  REQUIRE(::chown(node.dir().c_str(), kNobody, kNobody) == 0);
  node.Start(kNobody);
  REQUIRE(WaitFor([&] { return node.daemon_pid() > 0; }));
  CHECK(NobodyReads(node.mount_point() + "/hello"));
  SECTION("SIGTERM ends in order") {
    ::kill(node.guardian(), SIGTERM);
    CHECK(node.WaitForEnd() == 0);
    CHECK_THAT(node.log(), Catch::Matchers::Equals(""));
  }
  SECTION("SIGKILL of the daemon removes the mount") {
    ::kill(node.daemon_pid(), SIGKILL);
    CHECK(node.WaitForEnd() == 128 + SIGKILL);
  }
  SECTION("SIGKILL of the guardian removes the mount") {
    const int daemon = node.daemon_pid();
    ::kill(node.guardian(), SIGKILL);
    CHECK(WaitFor([&] { return !IsMounted(node.mount_point()); }));
    CHECK(WaitFor([&] { return !test::IsAlive(daemon); }));
  }
  CHECK_FALSE(IsMounted(node.mount_point()));
}

TEST_CASE("guardian: allow-other of an ordinary user names the line that /etc/fuse.conf lacks") {
  if (ReadFile("/etc/fuse.conf").find("\nuser_allow_other") != std::string::npos) return;
  const OpenDevFuse open_device;
  Node node;
  REQUIRE(::chown(node.mount_point().c_str(), kNobody, kNobody) == 0);
  node.options().config.fuse.allow_other = true;
  node.Start(kNobody);
  CHECK(node.WaitForEnd() == 1);
  CHECK_THAT(node.log(), HasText("/etc/fuse.conf has the line user_allow_other"));
}

}  // namespace
}  // namespace echofs::cmd
