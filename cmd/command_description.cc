#include "cmd/command_description.h"

#include <CLI/CLI.hpp>

#include "cmd/commands.h"

namespace echofs::cmd {
namespace {

OptionDescription DescribeOption(const CLI::Option& option) {
  OptionDescription description;
  for (const std::string& name : option.get_snames()) description.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) description.names.push_back("--" + name);
  if (description.positional()) {
    description.value = option.get_name(/*positional=*/true);
  } else if (option.get_type_size() != 0) {
    description.value = option.get_type_name();
  }
  description.help = option.get_description();
  description.required = option.get_required();
  return description;
}

}  // namespace

CommandDescription DescribeCommand(const CLI::App& app) {
  CommandDescription command;
  command.name = app.get_name();
  command.help = app.get_description();
  command.footer = app.get_footer();
  command.runs_command = RunsCommand(command.name);
  for (const CLI::Option* option : app.get_options()) {
    command.options.push_back(DescribeOption(*option));
  }
  const auto shown = [](const CLI::App* subcommand) { return !subcommand->get_group().empty(); };
  for (const CLI::App* subcommand : app.get_subcommands(shown)) {
    command.subcommands.push_back(DescribeCommand(*subcommand));
  }
  return command;
}

}  // namespace echofs::cmd
