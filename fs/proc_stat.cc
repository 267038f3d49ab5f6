#include "fs/proc_stat.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

namespace echofs::fs {

std::string ReadProcStat(pid_t id) {
  const int file = open(fmt::format("/proc/{}/stat", id).c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return "";
  std::string text(1024, '\0');
  const ssize_t n = read(file, text.data(), text.size());
  close(file);
  text.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
  return text;
}

std::string_view ProcName(std::string_view stat) {
  const std::size_t begin = stat.find('(');
  const std::size_t end = stat.rfind(')');
  if (begin == std::string_view::npos || end == std::string_view::npos || end < begin) return {};
  return stat.substr(begin + 1, end - begin - 1);
}

std::string_view ProcStatField(std::string_view stat, int number) {
  // The name is in parentheses and may contain anything, so what counts is behind the last one.
  const std::size_t name_end = stat.rfind(')');
  if (name_end == std::string_view::npos) return {};
  std::string_view rest = stat.substr(name_end + 1);
  for (int field = 2; field < number; ++field) {
    const std::size_t space = rest.find(' ');
    if (space == std::string_view::npos) return {};
    rest.remove_prefix(space + 1);
  }
  return rest.substr(0, rest.find_first_of(" \n"));
}

}  // namespace echofs::fs
