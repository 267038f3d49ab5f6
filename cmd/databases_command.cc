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
  bool local = false;
  bool json = false;
};

int ListLocalFiles(AdminClient* client, bool json) {
  const absl::StatusOr<std::vector<std::string>> files = client->LocalFiles();
  if (!files.ok()) return Fail(files.status());
  if (json) {
    std::fputs(LocalFilesJson(*files).c_str(), stdout);
  } else {
    for (const std::string& file : *files) std::puts(file.c_str());
  }
  return kExitOk;
}

int ListDatabases(AdminClient* client, bool json) {
  const absl::StatusOr<std::vector<DatabaseInfo>> databases = client->Databases();
  if (!databases.ok()) return Fail(databases.status());
  std::fputs((json ? DatabasesJson(*databases) : DatabasesText(*databases)).c_str(), stdout);
  return kExitOk;
}

int Databases(const Options& options) {
  const absl::StatusOr<std::string> data_dir = FindDataDir(options.flags, ProcessEnvironment);
  if (!data_dir.ok()) return FailUsage(data_dir.status());
  const auto client = AdminClient::Connect(*data_dir);
  if (!client.ok()) return Fail(client.status());
  return options.local ? ListLocalFiles(client->get(), options.json)
                       : ListDatabases(client->get(), options.json);
}

}  // namespace

void AddDatabasesCommand(CLI::App* app, int* exit_code) {
  CLI::App* command = app->add_subcommand("databases", "List the databases of a running node");
  const auto options = std::make_shared<Options>();
  AddNodeOptions(command, &options->flags);
  command->add_flag("--local", options->local, "List the files that stay on this node instead");
  command->add_flag("--json", options->json, "Print a JSON list");
  command->callback([options, exit_code] { *exit_code = Databases(*options); });
}

}  // namespace echofs::cmd
