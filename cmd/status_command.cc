#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "cmd/admin_client.h"
#include "cmd/commands.h"
#include "cmd/reports.h"

namespace echofs::cmd {
namespace {

int Status(const ConfigFlags& flags, bool json) {
  const absl::StatusOr<std::string> data_dir = FindDataDir(flags, ProcessEnvironment);
  if (!data_dir.ok()) return FailUsage(data_dir.status());
  const auto client = AdminClient::Connect(*data_dir);
  if (!client.ok()) return Fail(client.status());
  const absl::StatusOr<NodeStatus> status = (*client)->Status();
  if (!status.ok()) return Fail(status.status());
  std::fputs((json ? StatusJson(*status) : StatusText(*status)).c_str(), stdout);
  return kExitOk;
}

}  // namespace

void AddStatusCommand(CLI::App* app, int* exit_code) {
  CLI::App* command = app->add_subcommand("status", "Show the state of a running node");
  const auto flags = std::make_shared<ConfigFlags>();
  const auto json = std::make_shared<bool>(false);
  AddNodeOptions(command, flags.get());
  command->add_flag("--json", *json, "Print one JSON object");
  command->callback([flags, json, exit_code] { *exit_code = Status(*flags, *json); });
}

}  // namespace echofs::cmd
