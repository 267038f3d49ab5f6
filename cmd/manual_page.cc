#include <fmt/format.h>

#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "cmd/command_description.h"

namespace echofs::cmd {
namespace {

constexpr const char* kDescription =
    R"(An application opens its SQLite database in the mount of echofs and changes nothing else. One node, the
primary, takes writes; every committed transaction is sent to the other nodes, the replicas. When the
primary is lost, another node takes its place.
.PP
.B echofs mount
runs a node. The other commands talk to a node that runs on the same machine, which
.B \-\-config
or
.B \-\-data\-dir
names.)";

constexpr const char* kFiles = R"(.TP
.I /etc/echofs/echofs.yml
The configuration that the service echofs.service uses.
.TP
.I /usr/share/doc/echofs/
Every setting, the errors and what to do, and what is promised.)";

// As text of troff: nothing in it is a request, a dash is the one of options.
std::string Troff(const std::string& text) {
  const std::vector<std::string> lines = absl::StrSplit(text, '\n');
  std::string escaped;
  for (const std::string& line : lines) {
    if (!escaped.empty()) escaped += "\n";
    if (!line.empty() && (line[0] == '.' || line[0] == '\'')) escaped += "\\&";
    escaped += absl::StrReplaceAll(line, {{"\\", "\\e"}, {"-", "\\-"}});
  }
  return escaped;
}

std::string Bold(const std::string& text) { return "\\fB" + Troff(text) + "\\fR"; }
std::string Italic(const std::string& text) { return "\\fI" + Troff(text) + "\\fR"; }

bool IsHelp(const OptionDescription& option) {
  return !option.names.empty() && option.names.back() == "--help";
}

std::string OptionText(const OptionDescription& option) {
  std::string text = ".TP\n";
  for (std::size_t i = 0; i < option.names.size(); ++i) {
    text += (i > 0 ? ", " : "") + Bold(option.names[i]);
  }
  if (!option.value.empty()) text += (option.positional() ? "" : " ") + Italic(option.value);
  return text + "\n" + Troff(option.help) + ".\n";
}

std::string CommandText(const std::string& path, const CommandDescription& command) {
  std::string text;
  if (command.subcommands.empty()) {
    text += ".SS \"" + Troff(path) + "\"\n" + Troff(command.help) + ".\n";
    for (const OptionDescription& option : command.options) {
      if (!IsHelp(option)) text += OptionText(option);
    }
    if (command.runs_command) {
      text += ".TP\n" + Bold("--") + " " + Italic("CMD ARGS") + "\nThe command to run.\n";
    }
    if (!command.footer.empty()) text += ".PP\n" + Troff(command.footer) + "\n";
  }
  for (const CommandDescription& subcommand : command.subcommands) {
    text += CommandText(path + " " + subcommand.name, subcommand);
  }
  return text;
}

}  // namespace

std::string ManualPage(const CommandDescription& program, const std::string& version) {
  const std::string_view summary =
      std::string_view(program.help).substr(program.help.find(' ') + 1);
  std::string page = fmt::format(
      ".TH ECHOFS 1 \"\" \"echofs {}\" \"User Commands\"\n"
      ".SH NAME\n{} \\- {}\n"
      ".SH SYNOPSIS\n.B echofs\n.I COMMAND\n[\\fIOPTIONS\\fR]\n"
      ".SH DESCRIPTION\n{}\n"
      ".SH COMMANDS\n",
      version, program.name, Troff(std::string(summary)), kDescription);
  for (const CommandDescription& command : program.subcommands) {
    page += CommandText(command.name, command);
  }
  page += fmt::format(".SH EXIT STATUS\n{}\n.SH FILES\n{}\n", Troff(program.footer), kFiles);
  return page;
}

}  // namespace echofs::cmd
