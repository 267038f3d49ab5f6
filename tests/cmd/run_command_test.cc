// `echofs run` as a user has it: when the command is started, its exit code, and signals.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cmd/admin_server.h"
#include "cmd/config.h"
#include "cmd/supervisor.h"
#include "tests/cmd/fake_admin_source.h"
#include "tests/cmd/test_util.h"

namespace echofs::cmd {
namespace {

using test::HasText;

// `echofs run` beside a node that this process plays.
class RunningCommand {
 public:
  RunningCommand() : server_(AdminServer::Start(AdminSocketPath(dir_.path()), &source_)) {
    REQUIRE(server_.ok());
  }
  ~RunningCommand() {
    if (pid_ > 0) ::kill(pid_, SIGKILL);
    if (pid_ > 0) ::waitpid(pid_, nullptr, 0);
  }
  RunningCommand(const RunningCommand&) = delete;
  RunningCommand& operator=(const RunningCommand&) = delete;

  // Output goes to files. `script` is for sh.
  void Start(const std::string& script, bool promote = false) {
    std::vector<std::string> words = {ECHOFS_BINARY, "run", "--data-dir", dir_.path()};
    if (promote) words.emplace_back("--promote");
    for (const std::string& word :
         {std::string("--"), std::string("sh"), std::string("-c"), script}) {
      words.push_back(word);
    }
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    const std::string out = path("out");
    const std::string errors = path("errors");
    pid_ = ::fork();
    REQUIRE(pid_ >= 0);
    if (pid_ != 0) return;
    ::dup2(::open(out.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600), STDOUT_FILENO);
    ::dup2(::open(errors.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600), STDERR_FILENO);
    ::execv(argv[0], argv.data());
    ::_exit(99);
  }

  // Exit code as a shell reports it; nothing when it does not end.
  std::optional<int> WaitForEnd() {
    int status = 0;
    if (!test::WaitFor([&] { return ::waitpid(pid_, &status, WNOHANG) == pid_; })) {
      return std::nullopt;
    }
    pid_ = 0;
    return WIFEXITED(status) ? std::optional<int>(WEXITSTATUS(status)) : std::nullopt;
  }

  std::string path(const std::string& name) const { return dir_.path() + "/" + name; }
  std::string out() const { return test::ReadFile(path("out")); }
  std::string errors() const { return test::ReadFile(path("errors")); }
  bool WaitForFile(const std::string& name) const {
    return test::WaitFor([&] { return ::access(path(name).c_str(), F_OK) == 0; });
  }
  pid_t pid() const { return pid_; }
  test::FakeAdminSource& source() { return source_; }

 private:
  const test::TempDir dir_;
  test::FakeAdminSource source_;
  const absl::StatusOr<std::unique_ptr<AdminServer>> server_;
  pid_t pid_ = 0;
};

TEST_CASE("run: ends with the exit code of the command, and leaves stdout to it") {
  RunningCommand run;
  run.Start("echo out; exit 7");
  CHECK(run.WaitForEnd() == 7);
  CHECK(run.out() == "out\n");
  CHECK(run.errors().empty());
  run.Start("kill -KILL $$");
  CHECK(run.WaitForEnd() == 128 + SIGKILL);
}

TEST_CASE("run: with --promote the command runs once the node is the primary") {
  RunningCommand run;
  run.Start("echo out", /*promote=*/true);
  CHECK(run.WaitForEnd() == 0);
  CHECK(run.out() == "out\n");
  CHECK(run.errors() == "echofs: a is the primary now, term 4\n");

  run.source().lease_service = false;
  run.Start("echo out", /*promote=*/true);
  CHECK(run.WaitForEnd() == 1);
  CHECK(run.out().empty());
  CHECK(run.errors() == "echofs: the lease service cannot be asked\n");
}

TEST_CASE("run: the command waits until the node is ready") {
  RunningCommand run;
  run.source().ready = false;
  run.Start(": >" + run.path("marker"));
  REQUIRE(test::WaitFor([&] { return !run.errors().empty(); }));
  CHECK(run.errors() == "echofs: waiting until this node has caught up\n");
  CHECK(::access(run.path("marker").c_str(), F_OK) != 0);
  run.source().ready = true;
  CHECK(run.WaitForEnd() == 0);
  CHECK(::access(run.path("marker").c_str(), F_OK) == 0);
}

TEST_CASE("run: a signal while it waits ends it, and the command is not run") {
  RunningCommand run;
  run.source().ready = false;
  run.Start("echo out");
  REQUIRE(test::WaitFor([&] { return !run.errors().empty(); }));
  ::kill(run.pid(), SIGTERM);
  CHECK(run.WaitForEnd() == 128 + SIGTERM);
  CHECK(run.out().empty());
}

TEST_CASE("run: signals go to the command") {
  for (const auto& [signal, name] : {std::pair(SIGTERM, "TERM"), std::pair(SIGINT, "INT")}) {
    RunningCommand run;
    run.Start("trap 'exit 5' " + std::string(name) + "; : >" + run.path("marker") +
              "; while [ -e " + run.path("marker") + " ]; do sleep 0.01; done");
    REQUIRE(run.WaitForFile("marker"));
    ::kill(run.pid(), signal);
    CHECK(run.WaitForEnd() == 5);
  }
  RunningCommand run;
  run.Start(": >" + run.path("marker") + "; while [ -e " + run.path("marker") +
            " ]; do sleep 0.01; done");
  REQUIRE(run.WaitForFile("marker"));
  ::kill(run.pid(), SIGTERM);
  CHECK(run.WaitForEnd() == 128 + SIGTERM);
}

TEST_CASE("run: the command ends when echofs is killed") {
  RunningCommand run;
  run.Start("echo $$; : >" + run.path("marker") + "; while [ -e " + run.path("marker") +
            " ]; do sleep 0.01; done");
  REQUIRE(run.WaitForFile("marker"));
  const int command = std::stoi(run.out());
  ::kill(run.pid(), SIGKILL);
  run.WaitForEnd();
  CHECK(test::WaitFor([&] { return !test::IsAlive(command); }));
}

}  // namespace
}  // namespace echofs::cmd
