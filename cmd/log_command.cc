#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "cmd/admin_client.h"
#include "cmd/commands.h"
#include "cmd/reports.h"

namespace echofs::cmd {
namespace {

struct Options {
  ConfigFlags flags;
  std::string database;
  bool json = false;
};

int Log(const Options& options) {
  const absl::StatusOr<std::string> data_dir = FindDataDir(options.flags, ProcessEnvironment);
  if (!data_dir.ok()) return FailUsage(data_dir.status());
  const auto client = AdminClient::Connect(*data_dir);
  if (!client.ok()) return Fail(client.status());
  bool first = true;
  const absl::Status status =
      (*client)->ChangeSets(options.database, [&](const ChangeSetSummary& summary) {
        if (first && !options.json) std::fputs(ChangeSetHeading().c_str(), stdout);
        first = false;
        std::fputs((options.json ? ChangeSetJson(summary) : ChangeSetText(summary)).c_str(),
                   stdout);
      });
  if (!status.ok()) return Fail(status);
  if (first && !options.json) std::puts("the log holds no change set of this database");
  return kExitOk;
}

}  // namespace

void AddLogCommand(CLI::App* app, int* exit_code) {
  CLI::App* command =
      app->add_subcommand("log", "List the change sets of a database that the log still holds");
  const auto options = std::make_shared<Options>();
  command->add_option("DB", options->database, "The database's path below the mount")->required();
  AddNodeOptions(command, &options->flags);
  command->add_flag("--json", options->json, "Print one JSON object a line");
  command->callback([options, exit_code] { *exit_code = Log(*options); });
}

}  // namespace echofs::cmd
