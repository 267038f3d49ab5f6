#include <CLI/CLI.hpp>
#include <memory>

#include "cmd/commands.h"
#include "cmd/daemon.h"
#include "cmd/guardian.h"
#include "cmd/log_setup.h"

namespace echofs::cmd {
namespace {

int Mount(const ConfigFlags& flags, const std::vector<std::string>& command) {
  absl::StatusOr<Config> config = LoadConfig(flags, ProcessEnvironment);
  if (!config.ok()) return FailUsage(config.status());
  SetUpLogging(config->log);
  return RunGuardian({.config = *std::move(config), .command = command}, RunDaemon);
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
      "to it, and when it ends echofs ends with its exit code.");
  mount->callback([flags, command, exit_code] { *exit_code = Mount(*flags, *command); });
}

}  // namespace echofs::cmd
