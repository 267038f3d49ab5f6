#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "cmd/commands.h"
#include "cmd/daemon.h"
#include "cmd/guardian.h"
#include "cmd/log_setup.h"

namespace echofs::cmd {
namespace {

// The last of the list is the command that is supervised; when it is skipped, there is none.
void TakeExec(GuardianOptions* options) {
  const std::vector<ExecCommand>& exec = options->config.exec;
  for (std::size_t i = 0; i < exec.size(); ++i) {
    if (exec[i].if_candidate && !options->config.lease.candidate) {
      spdlog::info("exec: this node is no candidate (lease.candidate), so it does not run: {}",
                   exec[i].text);
    } else if (i + 1 < exec.size()) {
      options->steps.push_back(exec[i].words);
    } else {
      options->command = exec[i].words;
    }
  }
}

int Mount(const ConfigFlags& flags, const std::vector<std::string>& command) {
  absl::StatusOr<Config> config = LoadConfig(flags, ProcessEnvironment);
  if (!config.ok()) return FailUsage(config.status());
  SetUpLogging(config->log);
  GuardianOptions options;
  options.config = *std::move(config);
  options.command = command;
  if (command.empty()) TakeExec(&options);
  return RunGuardian(options, RunDaemon);
}

}  // namespace

void AddMountCommand(CLI::App* app, const std::vector<std::string>* command, int* exit_code) {
  CLI::App* mount = app->add_subcommand("mount", "Run a node: mount, serve and replicate");
  const auto flags = std::make_shared<ConfigFlags>();
  AddConfigOptions(mount, flags.get());
  mount->footer(
      "Stays in the foreground, logs to stderr, ends on SIGTERM or SIGINT.\n"
      "With '-- CMD ARGS' after the options, CMD is started when the mount is ready, signals are "
      "passed on\n"
      "to it, and when it ends echofs ends with its exit code. CMD replaces what the configuration "
      "lists\n"
      "under exec.");
  mount->callback([flags, command, exit_code] { *exit_code = Mount(*flags, *command); });
}

}  // namespace echofs::cmd
