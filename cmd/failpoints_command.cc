#include <CLI/CLI.hpp>
#include <cstdio>

#include "cmd/commands.h"
#include "replication/failpoint.h"

namespace echofs::cmd {

void AddFailpointsCommand(CLI::App* app, int* exit_code) {
  app->add_subcommand("failpoints", "Print the names of the failpoints, for tests")
      ->group("")  // not in the help
      ->callback([exit_code] {
        for (const std::string_view name : kFailpointNames) std::printf("%s\n", name.data());
        *exit_code = kExitOk;
      });
}

}  // namespace echofs::cmd
