#include <CLI/CLI.hpp>
#include <cstdio>

#include "cmd/command_description.h"
#include "cmd/commands.h"
#include "cmd/version.h"

namespace echofs::cmd {

void AddCompletionCommand(CLI::App* app, int* exit_code) {
  CLI::App* command = app->add_subcommand("completion", "Print a script that completes commands");
  command->require_subcommand(1);
  command->footer("As in: source <(echofs completion bash)");
  const auto add = [&](const char* shell, std::string (*script)(const CommandDescription&)) {
    command->add_subcommand(shell, std::string("For ") + shell)->callback([app, exit_code, script] {
      std::fputs(script(DescribeCommand(*app)).c_str(), stdout);
      *exit_code = kExitOk;
    });
  };
  add("bash", BashCompletion);
  add("zsh", ZshCompletion);
  add("fish", FishCompletion);
}

void AddManCommand(CLI::App* app, int* exit_code) {
  app->add_subcommand("man", "Print the manual page")
      ->group("")  // for those who make packages
      ->callback([app, exit_code] {
        std::fputs(ManualPage(DescribeCommand(*app), Version()).c_str(), stdout);
        *exit_code = kExitOk;
      });
}

}  // namespace echofs::cmd
