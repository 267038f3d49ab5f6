#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "cmd/admin_client.h"
#include "cmd/commands.h"
#include "cmd/reports.h"

namespace echofs::cmd {
namespace {

int Handoff(const ConfigFlags& flags, const std::string& to) {
  const absl::StatusOr<std::string> data_dir = FindDataDir(flags, ProcessEnvironment);
  if (!data_dir.ok()) return FailUsage(data_dir.status());
  const auto client = AdminClient::Connect(*data_dir);
  if (!client.ok()) return Fail(client.status());
  const absl::StatusOr<PrimaryInfo> primary = (*client)->Handoff(to);
  if (!primary.ok()) return Fail(primary.status());
  std::fputs(PrimaryText(*primary).c_str(), stdout);
  return kExitOk;
}

}  // namespace

void AddHandoffCommand(CLI::App* app, int* exit_code) {
  CLI::App* command =
      app->add_subcommand("handoff", "Make another node the primary in place of this one");
  const auto flags = std::make_shared<ConfigFlags>();
  const auto to = std::make_shared<std::string>();
  AddNodeOptions(command, flags.get());
  command->add_option("--to", *to, "Which node (default: the replica that has most of the log)");
  command->footer(
      "Run it on the primary. Writers wait for a moment, nothing is lost, no connection breaks.\n"
      "When it fails, this node stays the primary.");
  command->callback([flags, to, exit_code] { *exit_code = Handoff(*flags, *to); });
}

}  // namespace echofs::cmd
