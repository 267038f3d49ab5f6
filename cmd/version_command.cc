#include <CLI/CLI.hpp>
#include <cstdio>

#include "cmd/commands.h"
#include "cmd/version.h"

namespace echofs::cmd {

void AddVersionCommand(CLI::App* app, int* exit_code) {
  app->add_subcommand("version", "Print the version")->callback([exit_code] {
    std::printf("echofs %s\n", Version());
    *exit_code = kExitOk;
  });
}

}  // namespace echofs::cmd
