#include "cmd/supervisor.h"

#include <sys/wait.h>
#include <unistd.h>

#include "tests/catch.h"
#include "tests/cmd/test_util.h"

namespace echofs::cmd {
namespace {

using Clock = Supervisor::Clock;

sigset_t NoSignals() {
  sigset_t none;
  sigemptyset(&none);
  return none;
}

// Reaps children until the command has ended.
bool Reap(Supervisor* supervisor) {
  return test::WaitFor([supervisor] {
    int status = 0;
    const pid_t pid = ::waitpid(-1, &status, WNOHANG);
    return pid > 0 && supervisor->OnChildExit(pid, status);
  });
}

TEST_CASE("supervisor: the command's exit code is reported as a shell does") {
  Supervisor code({"sh", "-c", "exit 7"}, NoSignals(), kCommandGrace);
  REQUIRE(code.Start().ok());
  REQUIRE(Reap(&code));
  CHECK_FALSE(code.running());
  CHECK(code.exit_code() == 7);

  Supervisor killed({"sh", "-c", "kill -9 $$"}, NoSignals(), kCommandGrace);
  REQUIRE(killed.Start().ok());
  REQUIRE(Reap(&killed));
  CHECK(killed.exit_code() == 128 + 9);
}

TEST_CASE("supervisor: a command that cannot run is an error that names it") {
  Supervisor missing({"/no/such/program"}, NoSignals(), kCommandGrace);
  const absl::Status status = missing.Start();
  CHECK_THAT(std::string(status.message()), test::HasText("/no/such/program: No such file"));
  CHECK_FALSE(missing.running());
  CHECK(missing.exit_code() == 127);

  Supervisor directory({"/tmp"}, NoSignals(), kCommandGrace);
  CHECK_FALSE(directory.Start().ok());
  CHECK(directory.exit_code() == 126);
}

TEST_CASE("supervisor: signals are forwarded") {
  const test::TempDir dir;
  const std::string ready = dir.path() + "/ready";
  Supervisor supervisor(
      {"sh", "-c", "trap 'exit 5' USR1; : >" + ready + "; while :; do sleep 0.01; done"},
      NoSignals(), kCommandGrace);
  REQUIRE(supervisor.Start().ok());
  REQUIRE(test::WaitFor([&] { return ::access(ready.c_str(), F_OK) == 0; }));
  supervisor.Forward(SIGUSR1);
  REQUIRE(Reap(&supervisor));
  CHECK(supervisor.exit_code() == 5);
}

TEST_CASE("supervisor: a command that does not end in time is killed") {
  const test::TempDir dir;
  const std::string ready = dir.path() + "/ready";
  Supervisor supervisor(
      {"sh", "-c", "trap '' TERM; : >" + ready + "; while :; do sleep 0.01; done"}, NoSignals(),
      std::chrono::seconds(10));
  REQUIRE(supervisor.Start().ok());
  REQUIRE(test::WaitFor([&] { return ::access(ready.c_str(), F_OK) == 0; }));
  const Clock::time_point begin = Clock::now();
  supervisor.Stop(SIGTERM, begin);
  supervisor.Stop(SIGTERM, begin + std::chrono::seconds(5));
  REQUIRE(supervisor.deadline() == begin + std::chrono::seconds(10));
  supervisor.Tick(begin + std::chrono::seconds(9));
  CHECK(supervisor.deadline().has_value());
  supervisor.Tick(begin + std::chrono::seconds(10));
  REQUIRE(Reap(&supervisor));
  CHECK(supervisor.exit_code() == 128 + SIGKILL);
  CHECK_FALSE(supervisor.deadline().has_value());
}

}  // namespace
}  // namespace echofs::cmd
