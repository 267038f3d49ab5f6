#include "replication/failpoint.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <string>

#include "tests/catch.h"

namespace echofs {
namespace {

constexpr int kDone = 7;

// What becomes of a process that arms `text` and comes `times` times to a point, and to another one: waitpid's status.
int StatusOfChild(const std::string& text, int times) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    setenv(kFailpointVariable, text.c_str(), 1);
    if (std::freopen("/dev/null", "w", stderr) == nullptr) _exit(1);
    if (!ArmFailpointFromEnvironment().ok()) _exit(2);
    Failpoint("log.sync.before");
    for (int i = 0; i < times; ++i) Failpoint("log.sync.after");
    _exit(kDone);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return status;
}

bool WasKilled(int status) { return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL; }

TEST_CASE("failpoint: the armed point kills at its K-th hit, and no other does") {
  CHECK(WasKilled(StatusOfChild("log.sync.after", 1)));
  CHECK(WasKilled(StatusOfChild("log.sync.after:3", 3)));
  CHECK(WEXITSTATUS(StatusOfChild("log.sync.after:3", 2)) == kDone);
  CHECK(WEXITSTATUS(StatusOfChild("log.append.after", 2)) == kDone);
  CHECK(WEXITSTATUS(StatusOfChild("", 2)) == kDone);
}

TEST_CASE("failpoint: what cannot be armed is an error that says why") {
  for (const char* text :
       {"log.sync", "log.sync.after:0", "log.sync.after:", "log.sync.after:1x", ":1"}) {
    INFO(text);
    setenv(kFailpointVariable, text, 1);
    const absl::Status status = ArmFailpointFromEnvironment();
    CHECK(absl::IsInvalidArgument(status));
    CHECK(status.message().find(text) != std::string_view::npos);
  }
  unsetenv(kFailpointVariable);
  CHECK_FALSE(failpoint::armed);
}

TEST_CASE("failpoint: names are different, and say before or after") {
  std::set<std::string_view> seen;
  for (const std::string_view name : kFailpointNames) {
    INFO(std::string(name));
    CHECK(seen.insert(name).second);
    CHECK((name.ends_with(".before") || name.ends_with(".after")));
  }
}

}  // namespace
}  // namespace echofs
