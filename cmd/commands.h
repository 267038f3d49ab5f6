// The subcommands of `echofs`, each in its own file. AddX declares its options on `app`, and a
// callback that runs it and sets *exit_code. Pointers must stay valid until the command line has
// been parsed.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "cmd/config.h"

namespace CLI {
class App;
}

namespace echofs::cmd {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 2;  // wrong command line or configuration

// `command` is what stands after "--".
void AddMountCommand(CLI::App* app, const std::vector<std::string>* command, int* exit_code);
void AddRunCommand(CLI::App* app, const std::vector<std::string>* command, int* exit_code);
void AddStatusCommand(CLI::App* app, int* exit_code);
void AddDatabasesCommand(CLI::App* app, int* exit_code);
void AddLogCommand(CLI::App* app, int* exit_code);
void AddExportCommand(CLI::App* app, int* exit_code);
void AddImportCommand(CLI::App* app, int* exit_code);
void AddVerifyCommand(CLI::App* app, int* exit_code);
void AddHandoffCommand(CLI::App* app, int* exit_code);
void AddPromoteCommand(CLI::App* app, int* exit_code);
void AddOrphansCommand(CLI::App* app, int* exit_code);
void AddConfigCommand(CLI::App* app, int* exit_code);
void AddLeaseServerCommand(CLI::App* app, int* exit_code);
void AddVersionCommand(CLI::App* app, int* exit_code);
void AddFailpointsCommand(CLI::App* app, int* exit_code);
// These describe all commands that `app` has when the command line has been parsed.
void AddCompletionCommand(CLI::App* app, int* exit_code);
void AddManCommand(CLI::App* app, int* exit_code);

// Whether "-- CMD ARGS" may follow this subcommand.
inline bool RunsCommand(std::string_view subcommand) {
  return subcommand == "mount" || subcommand == "run";
}

// Options that several commands share.
void AddNodeOptions(CLI::App* command, ConfigFlags* flags);    // --config, --data-dir
void AddConfigOptions(CLI::App* command, ConfigFlags* flags);  // those and what overrides the file

// Says on stderr what went wrong; returns the exit code for it.
int Fail(const absl::Status& status);
int FailUsage(const absl::Status& status);

}  // namespace echofs::cmd
