// What the service manager hears, of the protocol alone and of a guardian. The latter needs root and /dev/fuse.
#include "cmd/service_notify.h"

#include <unistd.h>

#include <csignal>
#include <cstdlib>

#include "tests/cmd/guardian_node.h"
#include "tests/cmd/notify_socket.h"

namespace echofs::cmd {
namespace {

using test::HasText;
using test::IsMounted;
using test::NotifySocket;
using test::WaitFor;
using Node = test::GuardianNode;

constexpr const char* kReady = "READY=1";
constexpr const char* kWatchdog = "WATCHDOG=1";
constexpr const char* kStopping = "STOPPING=1";

// Sets a variable of this process's environment for its life.
class Variable {
 public:
  Variable(const char* name, const std::string& value) : name_(name) {
    ::setenv(name, value.c_str(), 1);
  }
  ~Variable() { ::unsetenv(name_); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* const name_;
};

TEST_CASE("service notify: messages go to a path and to an abstract name, one datagram each") {
  const test::TempDir dir;
  for (const std::string& address : {dir.path() + "/notify", "@" + dir.path() + "/abstract"}) {
    INFO(address);
    NotifySocket socket(address);
    const ServiceNotify notify = ServiceNotify::FromEnvironment();
    CHECK_FALSE(notify.watchdog_timeout());
    notify.Ready();
    notify.AnswerWatchdog();
    notify.Stopping();
    CHECK(socket.messages() == std::vector<std::string>{kReady, kWatchdog, kStopping});
  }
}

TEST_CASE("service notify: nothing of it is left in the environment") {
  const test::TempDir dir;
  const NotifySocket socket(dir.path() + "/notify");
  const Variable usec("WATCHDOG_USEC", "3000000");
  const Variable pid("WATCHDOG_PID", std::to_string(::getpid()));
  const ServiceNotify notify = ServiceNotify::FromEnvironment();
  CHECK(notify.watchdog_timeout() == std::chrono::seconds(3));
  for (const char* name : {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}) {
    CHECK(std::getenv(name) == nullptr);
  }
}

TEST_CASE("service notify: a watchdog that is not meant for this process is none") {
  const test::TempDir dir;
  const NotifySocket socket(dir.path() + "/notify");
  const auto timeout = [&](const std::string& usec, const std::string& pid) {
    ::setenv("NOTIFY_SOCKET", (dir.path() + "/notify").c_str(), 1);
    const Variable time("WATCHDOG_USEC", usec);
    const Variable process("WATCHDOG_PID", pid);
    return ServiceNotify::FromEnvironment().watchdog_timeout();
  };
  CHECK(timeout("1000", std::to_string(::getpid())).has_value());
  CHECK_FALSE(timeout("1000", std::to_string(::getppid())).has_value());
  for (const char* usec : {"", "0", "-5", "soon", "99999999999999999999"}) {
    CHECK_FALSE(timeout(usec, std::to_string(::getpid())).has_value());
  }
}

TEST_CASE("service notify: a socket that cannot be used does no harm") {
  for (const char* address : {"", "/", "@", "notify", "/no/such/socket", "vsock:2:1234"}) {
    const Variable variable("NOTIFY_SOCKET", address);
    ServiceNotify::FromEnvironment().Ready();
  }
  const Variable variable("NOTIFY_SOCKET", "/" + std::string(200, 'x'));
  ServiceNotify::FromEnvironment().Ready();
}

TEST_CASE("guardian: the service manager hears that the mount is ready, and that it stops") {
  const test::TempDir dir;
  NotifySocket socket(dir.path() + "/notify");
  Node node;
  node.options().command = {"sh", "-c",
                            "echo \"command: $NOTIFY_SOCKET$WATCHDOG_USEC\"; : >" + node.dir() +
                                "/marker; sleep 1000 & wait"};
  node.Start();
  REQUIRE(socket.WaitForMessage(kReady));
  CHECK(IsMounted(node.mount_point()));
  REQUIRE(node.WaitForMarker());
  ::kill(node.guardian(), SIGTERM);
  CHECK(node.WaitForEnd() == 128 + SIGTERM);
  CHECK(socket.messages() == std::vector<std::string>{kReady, kStopping});
  CHECK(node.log() == "command: \n");
}

TEST_CASE("guardian: the end of the command is a stop, too") {
  const test::TempDir dir;
  NotifySocket socket(dir.path() + "/notify");
  Node node;
  node.options().command = {"sh", "-c", "exit 7"};
  node.Start();
  CHECK(node.WaitForEnd() == 7);
  CHECK(socket.messages() == std::vector<std::string>{kReady, kStopping});
}

TEST_CASE("guardian: the watchdog is answered while the daemon serves") {
  const test::TempDir dir;
  NotifySocket socket(dir.path() + "/notify");
  const Variable usec("WATCHDOG_USEC", "300000");
  Node node;
  node.options().probe_file = "hello";
  node.Start();
  REQUIRE(socket.WaitForMessage(kWatchdog, 5));

  ::kill(node.daemon_pid(), SIGSTOP);
  REQUIRE(
      WaitFor([&] { return node.log().find("watchdog is not answered") != std::string::npos; }));
  const int answered = socket.Count(kWatchdog);
  ::kill(node.daemon_pid(), SIGCONT);
  CHECK(socket.WaitForMessage(kWatchdog, answered + 3));
  CHECK_THAT(node.log(), HasText("/hello can be read again"));

  ::kill(node.guardian(), SIGTERM);
  CHECK(node.WaitForEnd() == 0);
  CHECK(socket.messages().back() == kStopping);
  CHECK_THAT(node.log(), !HasText("in use by"));
}

TEST_CASE("guardian: a probe that hangs neither answers the watchdog nor keeps the node") {
  const test::TempDir dir;
  NotifySocket socket(dir.path() + "/notify");
  const Variable usec("WATCHDOG_USEC", "300000");
  Node node;
  node.options().probe_file = "hang";
  node.Start();
  REQUIRE(
      WaitFor([&] { return node.log().find("watchdog is not answered") != std::string::npos; }));
  ::kill(node.guardian(), SIGTERM);
  CHECK(node.WaitForEnd() == 0);
  CHECK_FALSE(IsMounted(node.mount_point()));
  CHECK(socket.messages() == std::vector<std::string>{kReady, kStopping});
}

}  // namespace
}  // namespace echofs::cmd
