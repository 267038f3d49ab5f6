// `echofs run`: two processes, one after the other. The first talks to the node, for which gRPC makes
// threads; the second is the command. This one waits for them, and has one thread.
#include <fmt/format.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <thread>

#include "cmd/admin_client.h"
#include "cmd/commands.h"
#include "cmd/foreground.h"
#include "cmd/reports.h"
#include "cmd/supervisor.h"

namespace echofs::cmd {
namespace {

constexpr std::chrono::milliseconds kReadyPoll{50};

int WaitUntilReady(AdminClient& client) {
  for (bool told = false;; told = true) {
    const absl::StatusOr<NodeStatus> status = client.Status();
    if (!status.ok()) return Fail(status.status());
    if (status->ready) return kExitOk;
    if (!told) std::fprintf(stderr, "echofs: waiting until this node has caught up\n");
    std::this_thread::sleep_for(kReadyPoll);
  }
}

// Exit code. Says on stderr what happens: stdout is the command's.
int Prepare(const std::string& data_dir, bool promote) {
  const auto client = AdminClient::Connect(data_dir);
  if (!client.ok()) return Fail(client.status());
  if (promote) {
    const absl::StatusOr<PrimaryInfo> primary = (*client)->Promote(/*force=*/false);
    if (!primary.ok()) return Fail(primary.status());
    std::fprintf(stderr, "echofs: %s", PrimaryText(*primary).c_str());
  }
  return WaitUntilReady(**client);
}

// Prepare in a process of its own; its exit code.
int PrepareInChild(const std::string& data_dir, bool promote, const Foreground& foreground) {
  std::fflush(nullptr);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) {
    return Fail(absl::InternalError(fmt::format("cannot fork: {}", std::strerror(errno))));
  }
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(kExitFailure);
    ::sigprocmask(SIG_SETMASK, &foreground.child_mask(), nullptr);
    ::_exit(Prepare(data_dir, promote));
  }
  return ShellExitCode(foreground.Wait(child));
}

int Run(const ConfigFlags& flags, bool promote, const std::vector<std::string>& command) {
  if (command.empty()) {
    return FailUsage(absl::InvalidArgumentError(
        "run what? Give a command behind the options: echofs run [OPTIONS] -- CMD ARGS"));
  }
  const absl::StatusOr<std::string> data_dir = FindDataDir(flags, ProcessEnvironment);
  if (!data_dir.ok()) return FailUsage(data_dir.status());
  const Foreground foreground;
  if (const int code = PrepareInChild(*data_dir, promote, foreground); code != kExitOk) return code;
  Supervisor supervisor(command, foreground.child_mask(), kCommandGrace);
  if (const absl::Status started = supervisor.Start(); !started.ok()) {
    Fail(started);
    return supervisor.exit_code();
  }
  const pid_t pid = supervisor.pid();
  supervisor.OnChildExit(pid, foreground.Wait(pid));
  return supervisor.exit_code();
}

}  // namespace

void AddRunCommand(CLI::App* app, const std::vector<std::string>* command, int* exit_code) {
  CLI::App* run =
      app->add_subcommand("run", "Run a command when the node is ready, or is the primary");
  const auto flags = std::make_shared<ConfigFlags>();
  const auto promote = std::make_shared<bool>(false);
  AddNodeOptions(run, flags.get());
  run->add_flag("--promote", *promote, "Make this node the primary first");
  run->footer(
      "The command stands behind the options: 'run --promote -- CMD ARGS'. Signals are passed on "
      "to "
      "it,\n"
      "and when it ends echofs ends with its exit code. When this node cannot become the primary, "
      "it "
      "is\n"
      "not run, and the exit code is 1.");
  run->callback(
      [flags, promote, command, exit_code] { *exit_code = Run(*flags, *promote, *command); });
}

}  // namespace echofs::cmd
