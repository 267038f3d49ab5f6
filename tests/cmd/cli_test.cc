// The program as a user runs it: exit codes and where messages go.
#include <array>
#include <cstdio>
#include <fstream>

#include "cmd/admin_server.h"
#include "cmd/config.h"
#include "cmd/supervisor.h"
#include "cmd/version.h"
#include "tests/cmd/fake_admin_source.h"
#include "tests/cmd/test_util.h"

namespace echofs::cmd {
namespace {

using test::HasText;

struct Result {
  int exit_code = 0;
  std::string output;
};

// Runs `echofs ARGUMENTS` through the shell; what it writes to stderr is discarded, or with
// `errors` is all that is returned.
Result Run(const std::string& arguments, bool errors = false) {
  const std::string command =
      std::string(ECHOFS_BINARY) + " " + arguments + (errors ? " 2>&1 >/dev/null" : " 2>/dev/null");
  std::fflush(nullptr);
  std::FILE* pipe = ::popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  Result result;
  std::array<char, 4096> buffer;
  while (const std::size_t got = std::fread(buffer.data(), 1, buffer.size(), pipe)) {
    result.output.append(buffer.data(), got);
  }
  result.exit_code = ShellExitCode(::pclose(pipe));
  return result;
}

TEST_CASE("command line: help and version succeed") {
  CHECK(Run("--help").exit_code == 0);
  CHECK_THAT(Run("--help").output, HasText("Exit codes: 0 well done"));
  CHECK_THAT(Run("mount --help").output, HasText("--lease-primary"));
  CHECK(Run("version").output == std::string("echofs ") + Version() + "\n");
}

TEST_CASE("command line: mistakes end with exit code 2 and a message on stderr") {
  for (const char* arguments : {"",
                                "nonsense",
                                "status",
                                "log --data-dir /x",
                                "mount",
                                "mount --data-dir /x",
                                "status --fuse-dir /x",
                                "mount --fuse-dir /x --data-dir /y --",
                                "version -- sh",
                                "config",
                                "config check --config /no/such/file",
                                "run --data-dir /x",
                                "run --data-dir /x --",
                                "run -- true",
                                "handoff",
                                "promote",
                                "handoff --data-dir /x b",
                                "promote --data-dir /x -- sh",
                                "lease-server",
                                "lease-server --listen a:1",
                                "lease-server --listen a --data-dir /x",
                                "mount --fuse-dir /x --data-dir /y --log-level loud"}) {
    INFO(arguments);
    const Result result = Run(arguments, /*errors=*/true);
    CHECK(result.exit_code == 2);
    CHECK_FALSE(result.output.empty());
    CHECK(Run(arguments).output.empty());
  }
}

TEST_CASE("command line: a wrong configuration key is named with its line") {
  const test::TempDir dir;
  std::ofstream(dir.path() + "/e.yml") << "fuse:\n  dri: /x\n";
  const Result result = Run("config check --config " + dir.path() + "/e.yml", /*errors=*/true);
  CHECK(result.exit_code == 2);
  CHECK_THAT(result.output,
             HasText("e.yml:2: unknown key fuse.dri; the nearest known key is fuse.dir"));
}

TEST_CASE("command line: config check says what the configuration means") {
  const Result result = Run("config check --fuse-dir /m --data-dir /d --node-id n");
  CHECK(result.exit_code == 0);
  CHECK_THAT(result.output, HasText("role      primary on its own"));
}

TEST_CASE("command line: failures end with exit code 1") {
  const test::TempDir dir;
  const Result status = Run("status --data-dir " + dir.path(), /*errors=*/true);
  CHECK(status.exit_code == 1);
  CHECK_THAT(status.output, HasText("no echofs is running"));
  for (const char* command : {"handoff", "promote", "promote --force"}) {
    const Result result = Run(std::string(command) + " --data-dir " + dir.path(), /*errors=*/true);
    CHECK(result.exit_code == 1);
    CHECK_THAT(result.output, HasText("no echofs is running"));
  }
  const Result mount = Run(
      "mount --fuse-dir " + dir.path() + "/none --data-dir " + dir.path() + "/d", /*errors=*/true);
  CHECK(mount.exit_code == 1);
  CHECK_THAT(mount.output, HasText("does not exist"));
}

TEST_CASE("command line: status, databases and log ask the running node") {
  const test::TempDir dir;
  test::FakeAdminSource source;
  const auto server = AdminServer::Start(AdminSocketPath(dir.path()), &source);
  REQUIRE(server.ok());
  const std::string node = " --data-dir " + dir.path();
  CHECK_THAT(Run("status --json" + node).output, HasText("\"ready\": true"));
  CHECK_THAT(Run("status" + node).output, HasText("a (primary, ready)"));
  CHECK_THAT(Run("databases" + node).output, HasText("sub/other.db"));
  CHECK_THAT(Run("databases --json" + node).output, HasText("\"name\": \"app.db\""));
  CHECK(Run("databases --local" + node).output == "notes.txt\nsub/x-mj012345678\n");
  CHECK_THAT(Run("databases --local --json" + node).output, HasText("\"notes.txt\""));
  CHECK_THAT(Run("log app.db" + node).output, HasText("2023-11-14 22:13:20.123"));
  CHECK_THAT(Run("log app.db --json" + node).output, HasText("\"kind\":\"drop\""));
  const Result missing = Run("log none.db" + node, /*errors=*/true);
  CHECK(missing.exit_code == 1);
  CHECK_THAT(missing.output, HasText("there is no database none.db"));

  std::ofstream(dir.path() + "/e.yml") << "data: { dir: " << dir.path() << " }\n";
  CHECK(Run("status --config " + dir.path() + "/e.yml").exit_code == 0);
}

TEST_CASE("command line: handoff and promote say who is the primary, in one line") {
  const test::TempDir dir;
  test::FakeAdminSource source;
  const auto server = AdminServer::Start(AdminSocketPath(dir.path()), &source);
  REQUIRE(server.ok());
  const std::string node = " --data-dir " + dir.path();
  CHECK(Run("handoff" + node).output == "b is the primary now, term 4\n");
  CHECK(Run("handoff --to d" + node).output == "d is the primary now, term 4\n");
  const Result refused = Run("handoff --to c" + node, /*errors=*/true);
  CHECK(refused.exit_code == 1);
  CHECK(refused.output == "echofs: c is not connected to this primary\n");

  CHECK(Run("promote" + node).output == "a is the primary now, term 4\n");
  CHECK(Run("promote --force" + node).output == "a is the primary now, term 5\n");
  source.role = "candidate";
  CHECK_THAT(Run("promote --force" + node, /*errors=*/true).output,
             HasText("this node's log ends at entry 12 of term 3"));
  CHECK(Run("promote" + node, /*errors=*/true).output.empty());
  source.lease_service = false;
  const Result failed = Run("promote" + node, /*errors=*/true);
  CHECK(failed.exit_code == 1);
  CHECK(failed.output == "echofs: the lease service cannot be asked\n");
}

TEST_CASE("command line: config check lists what exec runs and skips") {
  const test::TempDir dir;
  std::ofstream(dir.path() + "/e.yml")
      << "fuse: { dir: /m }\ndata: { dir: /d }\nlease: { candidate: false }\n"
         "exec: [ { cmd: \"migrate 'a b'\", if-candidate: true }, { cmd: app } ]\n";
  const Result result = Run("config check --config " + dir.path() + "/e.yml");
  CHECK(result.exit_code == 0);
  CHECK_THAT(result.output, HasText("skips     migrate 'a b' (not a candidate)\n"
                                    "runs      app\n"));
}

}  // namespace
}  // namespace echofs::cmd
