#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "cmd/commands.h"
#include "cmd/import_database.h"
#include "cmd/reports.h"
#include "replication/log_entry.h"

namespace echofs::cmd {
namespace {

struct Options {
  ConfigFlags flags;
  ImportOptions import;
  bool json = false;
};

int Import(Options& options) {
  const absl::StatusOr<std::string> data_dir = FindDataDir(options.flags, ProcessEnvironment);
  if (!data_dir.ok()) return FailUsage(data_dir.status());
  if (!IsValidDatabaseName(options.import.database)) {
    return FailUsage(absl::InvalidArgumentError(fmt::format(
        "'{}' cannot be the name of a database: it is a path below the mount, of at most {} bytes, "
        "without '..', '.' and empty parts, that does not end in -journal, -wal, -shm or -pos",
        options.import.database, kDatabaseNameSizeMax)));
  }
  options.import.data_dir = *data_dir;
  const absl::StatusOr<DatabasePosition> position = ImportDatabase(options.import);
  if (!position.ok()) return Fail(position.status());
  std::fputs((options.json ? PositionJson(*position) : PositionText("imported", *position)).c_str(),
             stdout);
  return kExitOk;
}

}  // namespace

void AddImportCommand(CLI::App* app, int* exit_code) {
  CLI::App* command =
      app->add_subcommand("import", "Take a database file into the cluster, as one transaction");
  const auto options = std::make_shared<Options>();
  command
      ->add_option("DB,--db", options->import.database,
                   "The path below the mount that it is to have")
      ->required();
  command->add_option("FILE,--file", options->import.file, "The database file; it is only read")
      ->required();
  AddNodeOptions(command, &options->flags);
  command->add_flag("--replace", options->import.replace,
                    "Replace the content of the database when it exists");
  command->add_flag("--skip-check", options->import.skip_check, "Import without integrity_check");
  command->add_flag("--json", options->json, "Print where the database stands as JSON");
  // The primary's part of an import that another node has sent.
  command->add_flag("--received", options->import.received)->group("");
  command->callback([options, exit_code] { *exit_code = Import(*options); });
}

}  // namespace echofs::cmd
