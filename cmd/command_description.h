// What `echofs --help` knows of the commands, as plain data: for the manual page and the completions of shells.
#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace echofs::cmd {

struct OptionDescription {
  std::vector<std::string> names;  // "-h", "--help"; empty for a positional argument
  std::string value;               // kind of the value, such as kFileValue; empty for a flag;
                                   // the name of a positional argument
  std::string help;
  bool required = false;

  bool positional() const { return names.empty(); }
};

struct CommandDescription {
  std::string name;
  std::string help;
  std::string footer;
  bool runs_command = false;  // may be followed by "-- CMD ARGS"
  std::vector<OptionDescription> options;
  std::vector<CommandDescription> subcommands;
};

// Kinds of values for which shells have a completion.
inline constexpr const char* kFileValue = "FILE";
inline constexpr const char* kDirectoryValue = "DIR";

// Without hidden commands. `app` is not changed.
CommandDescription DescribeCommand(const CLI::App& app);

// Makes texts of it: a shell's completion script, or a manual page in troff with the macros of man.
std::string BashCompletion(const CommandDescription& program);
std::string ZshCompletion(const CommandDescription& program);
std::string FishCompletion(const CommandDescription& program);
std::string ManualPage(const CommandDescription& program, const std::string& version);

}  // namespace echofs::cmd
