#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "cmd/admin_client.h"
#include "cmd/commands.h"
#include "cmd/reports.h"

namespace echofs::cmd {
namespace {

int Promote(const ConfigFlags& flags, bool force) {
  const absl::StatusOr<std::string> data_dir = FindDataDir(flags, ProcessEnvironment);
  if (!data_dir.ok()) return FailUsage(data_dir.status());
  const auto client = AdminClient::Connect(*data_dir);
  if (!client.ok()) return Fail(client.status());
  if (force) {
    const absl::StatusOr<NodeStatus> status = (*client)->Status();
    if (!status.ok()) return Fail(status.status());
    std::fputs(ForceWarning(*status).c_str(), stderr);
  }
  const absl::StatusOr<PrimaryInfo> primary = (*client)->Promote(force);
  if (!primary.ok()) return Fail(primary.status());
  std::fputs(PrimaryText(*primary).c_str(), stdout);
  return kExitOk;
}

}  // namespace

void AddPromoteCommand(CLI::App* app, int* exit_code) {
  CLI::App* command = app->add_subcommand("promote", "Make this node the primary");
  const auto flags = std::make_shared<ConfigFlags>();
  const auto force = std::make_shared<bool>(false);
  AddNodeOptions(command, flags.get());
  command->add_flag("--force", *force, "Also when commits that were acknowledged may be lost");
  command->footer(
      "The primary is asked to hand off, by which nothing is lost. When there is no primary, this "
      "node\n"
      "becomes it at once, if it may.");
  command->callback([flags, force, exit_code] { *exit_code = Promote(*flags, *force); });
}

}  // namespace echofs::cmd
