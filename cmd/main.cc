#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "cmd/commands.h"

namespace echofs::cmd {
namespace {

constexpr const char* kFooter =
    "Exit codes: 0 well done, 1 failed, 2 wrong command line or configuration;\n"
    "'mount -- CMD' and 'run -- CMD' end with the exit code of CMD.";

int Main(int argc, char** argv) {
  // What follows "--" belongs to the command that is to be run, options included.
  int own_argc = argc;
  std::vector<std::string> command;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--") != 0) continue;
    own_argc = i;
    command.assign(argv + i + 1, argv + argc);
    break;
  }

  CLI::App app("echofs: a file system for SQLite that replicates", "echofs");
  app.require_subcommand(1);
  app.footer(kFooter);
  int exit_code = kExitOk;
  AddMountCommand(&app, &command, &exit_code);
  AddStatusCommand(&app, &exit_code);
  AddDatabasesCommand(&app, &exit_code);
  AddLogCommand(&app, &exit_code);
  AddExportCommand(&app, &exit_code);
  AddImportCommand(&app, &exit_code);
  AddVerifyCommand(&app, &exit_code);
  AddHandoffCommand(&app, &exit_code);
  AddPromoteCommand(&app, &exit_code);
  AddRunCommand(&app, &command, &exit_code);
  AddOrphansCommand(&app, &exit_code);
  AddConfigCommand(&app, &exit_code);
  AddLeaseServerCommand(&app, &exit_code);
  AddVersionCommand(&app, &exit_code);
  AddFailpointsCommand(&app, &exit_code);
  AddCompletionCommand(&app, &exit_code);
  AddManCommand(&app, &exit_code);
  // Before any command runs: callbacks of subcommands come after this one.
  app.parse_complete_callback([&] {
    if (own_argc == argc) return;
    const std::vector<CLI::App*> chosen = app.get_subcommands();
    if (chosen.empty() || !RunsCommand(chosen.front()->get_name())) {
      throw CLI::ValidationError("'-- CMD' belongs to the commands mount and run only");
    }
    if (command.empty()) throw CLI::ValidationError("there is no command after '--'");
  });
  try {
    app.parse(own_argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  return exit_code;
}

}  // namespace
}  // namespace echofs::cmd

int main(int argc, char** argv) { return echofs::cmd::Main(argc, argv); }
