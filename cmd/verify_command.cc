#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "cmd/commands.h"
#include "cmd/verification.h"

namespace echofs::cmd {
namespace {

struct Options {
  ConfigFlags flags;
  VerifyOptions verify;
  bool json = false;
};

int Verify(const Options& options) {
  const absl::StatusOr<std::string> data_dir = FindDataDir(options.flags, ProcessEnvironment);
  if (!data_dir.ok()) return FailUsage(data_dir.status());
  const absl::StatusOr<Verification> verification = VerifyNode(*data_dir, options.verify);
  if (!verification.ok()) return Fail(verification.status());
  std::fputs(
      (options.json ? VerificationJson(*verification) : VerificationText(*verification)).c_str(),
      stdout);
  return verification->AllEqual() ? kExitOk : kExitFailure;
}

}  // namespace

void AddVerifyCommand(CLI::App* app, int* exit_code) {
  CLI::App* command = app->add_subcommand(
      "verify", "Compare databases on all nodes with the history that this node's log has");
  const auto options = std::make_shared<Options>();
  command->add_option("DB", options->verify.database, "Only this database (default: all)");
  AddNodeOptions(command, &options->flags);
  command->add_flag("--full", options->verify.full,
                    "Read this node's copy, all of it, and compute its digest anew");
  command->add_flag("--repair", options->verify.repair,
                    "On a replica: fetch its copy from the primary again when it is not equal");
  command->add_flag("--json", options->json, "Print a JSON object");
  command->footer("Exit codes: 0 all equal, 1 a difference, or something could not be compared.");
  command->callback([options, exit_code] { *exit_code = Verify(*options); });
}

}  // namespace echofs::cmd
