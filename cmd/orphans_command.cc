#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "cmd/admin_client.h"
#include "cmd/command_description.h"
#include "cmd/commands.h"
#include "cmd/orphan_export.h"
#include "cmd/reports.h"

namespace echofs::cmd {
namespace {

struct Options {
  ConfigFlags flags;
  bool json = false;
  std::string id;
  std::string directory;
  bool all = false;
};

int List(AdminClient* client, const Options& options) {
  const absl::StatusOr<std::vector<OrphanInfo>> list = client->Orphans();
  if (!list.ok()) return Fail(list.status());
  std::fputs((options.json ? OrphansJson(*list) : OrphansText(*list)).c_str(), stdout);
  return kExitOk;
}

int Export(AdminClient* client, const Options& options) {
  OrphanExport files(options.directory);
  absl::Status status = client->ExportOrphans(
      options.id, [&](const AdminClient::OrphanPiece& piece) { return files.Add(piece); });
  if (status.ok()) status = files.Finish();
  if (!status.ok()) return Fail(status);
  fmt::print("{} change sets written to {}\n", files.count(), options.directory);
  return kExitOk;
}

int Discard(AdminClient* client, const Options& options) {
  if (options.id.empty() != options.all) {
    return FailUsage(absl::InvalidArgumentError(
        "name the orphans to discard by their id (see 'echofs orphans list'), or all by --all"));
  }
  const absl::StatusOr<std::uint64_t> discarded = client->DiscardOrphans(options.id);
  if (!discarded.ok()) return Fail(discarded.status());
  fmt::print("discarded: {}\n", *discarded);
  return kExitOk;
}

using Action = int (*)(AdminClient*, const Options&);

CLI::App* AddAction(CLI::App* command, const std::string& name, const std::string& help,
                    Action action, const std::shared_ptr<Options>& options, int* exit_code) {
  CLI::App* added = command->add_subcommand(name, help);
  AddNodeOptions(added, &options->flags);
  added->callback([options, action, exit_code] {
    const absl::StatusOr<std::string> data_dir = FindDataDir(options->flags, ProcessEnvironment);
    if (!data_dir.ok()) {
      *exit_code = FailUsage(data_dir.status());
      return;
    }
    const auto client = AdminClient::Connect(*data_dir);
    *exit_code = client.ok() ? action(client->get(), *options) : Fail(client.status());
  });
  return added;
}

}  // namespace

void AddOrphansCommand(CLI::App* app, int* exit_code) {
  CLI::App* command = app->add_subcommand(
      "orphans", "Change sets of a running node that the cluster's history lacks");
  command->require_subcommand(1);
  const auto options = std::make_shared<Options>();
  CLI::App* list =
      AddAction(command, "list", "List them, by the times at which they were set aside", List,
                options, exit_code);
  list->add_flag("--json", options->json, "Print a JSON list");
  CLI::App* exported = AddAction(command, "export", "Write each change set into an LTX file",
                                 Export, options, exit_code);
  exported->add_option("ID", options->id, "As 'echofs orphans list' shows it")->required();
  exported
      ->add_option("--to", options->directory,
                   "Directory to write into; files go below it, by database")
      ->required()
      ->type_name(kDirectoryValue);
  CLI::App* discard =
      AddAction(command, "discard", "Delete them for good", Discard, options, exit_code);
  discard->add_option("ID", options->id, "As 'echofs orphans list' shows it");
  discard->add_flag("--all", options->all, "All that there are");
}

}  // namespace echofs::cmd
