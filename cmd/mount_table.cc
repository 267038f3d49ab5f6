#include "cmd/mount_table.h"

#include <fstream>
#include <sstream>

namespace echofs::cmd {
namespace {

bool IsOctal(char c) { return c >= '0' && c <= '7'; }

// Decodes the kernel's escapes: a space is \040.
std::string Unescape(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && IsOctal(text[i + 1]) && IsOctal(text[i + 2]) &&
        IsOctal(text[i + 3])) {
      out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                               (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

// "36 35 0:52 / /mnt rw,noatime shared:1 - fuse.echofs echofs rw,user_id=0": the number of fields
// before the "-" varies.
std::optional<MountEntry> ParseLine(const std::string& line) {
  std::istringstream fields(line);
  MountEntry entry;
  int parent = 0;
  char colon = 0;
  std::string root;
  std::string mount_point;
  if (!(fields >> entry.id >> parent >> entry.major >> colon >> entry.minor >> root >>
        mount_point) ||
      colon != ':') {
    return std::nullopt;
  }
  std::string field;
  while (fields >> field && field != "-") {
  }
  if (!(fields >> entry.type)) return std::nullopt;
  entry.mount_point = Unescape(mount_point);
  entry.type = Unescape(entry.type);
  return entry;
}

}  // namespace

std::vector<MountEntry> ParseMountTable(std::string_view text) {
  std::vector<MountEntry> table;
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    if (std::optional<MountEntry> entry = ParseLine(line)) table.push_back(*std::move(entry));
  }
  return table;
}

std::vector<MountEntry> ReadMountTable() {
  std::ifstream file("/proc/self/mountinfo");
  std::ostringstream text;
  text << file.rdbuf();
  return ParseMountTable(text.str());
}

std::optional<MountEntry> FindMountOn(const std::vector<MountEntry>& table,
                                      std::string_view mount_point) {
  for (auto entry = table.rbegin(); entry != table.rend(); ++entry) {
    if (entry->mount_point == mount_point) return *entry;
  }
  return std::nullopt;
}

}  // namespace echofs::cmd
