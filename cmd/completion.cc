// The completion scripts. Each first finds the command that is typed, as the words of its path with a space before
// each (" orphans list"), and then looks up what may stand there.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <string>
#include <vector>

#include "absl/strings/str_replace.h"
#include "cmd/command_description.h"

namespace echofs::cmd {
namespace {

struct Place {
  std::string path;  // "" for the program itself
  const CommandDescription* command;
};

void AddPlaces(const std::string& path, const CommandDescription& command,
               std::vector<Place>* places) {
  places->push_back({path, &command});
  for (const CommandDescription& subcommand : command.subcommands) {
    AddPlaces(path + " " + subcommand.name, subcommand, places);
  }
}

std::vector<Place> Places(const CommandDescription& program) {
  std::vector<Place> places;
  AddPlaces("", program, &places);
  return places;
}

// `separator` between them.
std::string Paths(const std::vector<Place>& places, const char* separator) {
  std::vector<std::string> paths;
  for (const Place& place : places) {
    if (!place.path.empty()) paths.push_back(fmt::format("\"{}\"", place.path));
  }
  return fmt::format("{}", fmt::join(paths, separator));
}

// Patterns of a shell's case: the command's path and an option, for the options whose values `wanted` takes.
template <typename Wanted>
std::string OptionPatterns(const std::vector<Place>& places, const Wanted& wanted) {
  std::vector<std::string> patterns;
  for (const Place& place : places) {
    for (const OptionDescription& option : place.command->options) {
      if (option.positional() || option.value.empty() || !wanted(option.value)) continue;
      for (const std::string& name : option.names) {
        patterns.push_back(fmt::format("\"{} {}\"", place.path, name));
      }
    }
  }
  return fmt::format("{}", fmt::join(patterns, " | "));
}

bool IsFile(const std::string& value) { return value == kFileValue; }
bool IsDirectory(const std::string& value) { return value == kDirectoryValue; }
bool IsOther(const std::string& value) { return !IsFile(value) && !IsDirectory(value); }

std::string Quoted(const std::string& text) {
  return "'" + absl::StrReplaceAll(text, {{"'", "'\\''"}}) + "'";
}

std::string BashWords(const CommandDescription& command) {
  std::vector<std::string> words;
  for (const CommandDescription& subcommand : command.subcommands) words.push_back(subcommand.name);
  for (const OptionDescription& option : command.options) {
    words.insert(words.end(), option.names.begin(), option.names.end());
  }
  return fmt::format("{}", fmt::join(words, " "));
}

// Entries of zsh's _describe, "word:what it is".
std::string ZshEntries(const std::vector<std::pair<std::string, std::string>>& words) {
  std::string entries;
  for (const auto& [word, help] : words) {
    entries += fmt::format(" {}", Quoted(fmt::format("{}:{}", word, help)));
  }
  return entries;
}

std::string ZshCase(const Place& place) {
  std::vector<std::pair<std::string, std::string>> commands;
  for (const CommandDescription& command : place.command->subcommands) {
    commands.emplace_back(command.name, command.help);
  }
  std::vector<std::pair<std::string, std::string>> options;
  for (const OptionDescription& option : place.command->options) {
    for (const std::string& name : option.names) options.emplace_back(name, option.help);
  }
  return fmt::format("    (\"{}\") subcommands=({} ) flags=({} ) ;;\n", place.path,
                     ZshEntries(commands), ZshEntries(options));
}

std::string FishOption(const Place& place, const OptionDescription& option) {
  std::string line = fmt::format("complete -c echofs -n '__echofs_is \"{}\"'", place.path);
  for (const std::string& name : option.names) {
    line += name.size() == 2 ? " -s " + name.substr(1) : " -l " + name.substr(2);
  }
  if (IsFile(option.value)) {
    line += " -r -F";
  } else if (IsDirectory(option.value)) {
    line += " -x -a '(__fish_complete_directories)'";
  } else if (!option.value.empty()) {
    line += " -x";
  }
  return line + " -d " + Quoted(option.help) + "\n";
}

}  // namespace

std::string BashCompletion(const CommandDescription& program) {
  const std::vector<Place> places = Places(program);
  std::string script = fmt::format(
      R"(# Completion of echofs for bash, made by 'echofs completion bash'.
_echofs() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} command= words= i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    if [[ ${{COMP_WORDS[i]}} == -- ]]; then
      ((i + 1 == COMP_CWORD)) && mapfile -t COMPREPLY < <(compgen -c -- "$current")
      compopt -o default 2>/dev/null
      return
    fi
    case "$command ${{COMP_WORDS[i]}}" in
      {}) command+=" ${{COMP_WORDS[i]}}" ;;
    esac
  done
  case "$command ${{COMP_WORDS[COMP_CWORD - 1]}}" in
    {}) compopt -o default 2>/dev/null; return ;;
    {}) compopt -o dirnames 2>/dev/null; return ;;
    {}) return ;;
  esac
  case "$command" in
)",
      Paths(places, " | "), OptionPatterns(places, IsFile), OptionPatterns(places, IsDirectory),
      OptionPatterns(places, IsOther));
  for (const Place& place : places) {
    script += fmt::format("    \"{}\") words=\"{}\" ;;\n", place.path, BashWords(*place.command));
  }
  return script + R"(  esac
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -F _echofs echofs
)";
}

std::string ZshCompletion(const CommandDescription& program) {
  const std::vector<Place> places = Places(program);
  std::string script = fmt::format(
      R"(#compdef echofs
# Completion of echofs for zsh, made by 'echofs completion zsh'.
_echofs() {{
  local command= i
  local -a subcommands flags
  for ((i = 2; i < CURRENT; i++)); do
    if [[ $words[i] == -- ]]; then
      shift $i words
      ((CURRENT -= i))
      _normal
      return
    fi
    case "$command $words[i]" in
      ({}) command+=" $words[i]" ;;
    esac
  done
  case "$command $words[CURRENT-1]" in
    ({}) _files; return ;;
    ({}) _files -/; return ;;
    ({}) return 1 ;;
  esac
  case "$command" in
)",
      Paths(places, " | "), OptionPatterns(places, IsFile), OptionPatterns(places, IsDirectory),
      OptionPatterns(places, IsOther));
  for (const Place& place : places) script += ZshCase(place);
  return script + R"(  esac
  ((#subcommands)) && _describe command subcommands
  _describe -o option flags
}
if [[ $funcstack[1] == _echofs ]]; then
  _echofs "$@"
else
  compdef _echofs echofs
fi
)";
}

std::string FishCompletion(const CommandDescription& program) {
  const std::vector<Place> places = Places(program);
  std::string script = fmt::format(
      R"fish(# Completion of echofs for fish, made by 'echofs completion fish'.
function __echofs_command
    set -l command
    for word in (commandline -opc)[2..]
        if test "$word" = --
            set command --
            break
        end
        switch "$command $word"
            case {}
                set command "$command $word"
        end
    end
    echo "$command"
end
function __echofs_is
    test "$(__echofs_command)" = $argv[1]
end
complete -c echofs -f
complete -c echofs -n '__echofs_is --' -F
)fish",
      Paths(places, " "));
  for (const Place& place : places) {
    for (const CommandDescription& command : place.command->subcommands) {
      script += fmt::format("complete -c echofs -n '__echofs_is \"{}\"' -a {} -d {}\n", place.path,
                            command.name, Quoted(command.help));
    }
    for (const OptionDescription& option : place.command->options) {
      if (!option.positional()) script += FishOption(place, option);
    }
  }
  return script;
}

}  // namespace echofs::cmd
