#include "cmd/mount_users.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <optional>

namespace echofs::cmd {
namespace {

constexpr std::size_t kCommandSizeMax = 120;  // bytes

std::string ReadLink(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::read_symlink(path, error).string();
}

bool IsBelow(const std::string& path, const std::string& directory) {
  return path == directory || path.compare(0, directory.size() + 1, directory + "/") == 0;
}

// Path of an open file of the process in the mount: /proc/PID/fdinfo names the mount of each.
std::optional<std::string> FindOpenFile(const std::filesystem::path& process,
                                        const MountEntry& mount) {
  const std::string wanted = fmt::format("mnt_id:\t{}", mount.id);
  std::error_code error;
  for (std::filesystem::directory_iterator fd(process / "fdinfo", error), end; !error && fd != end;
       fd.increment(error)) {
    std::ifstream info(fd->path());
    for (std::string line; std::getline(info, line);) {
      if (line == wanted) return ReadLink(process / "fd" / fd->path().filename());
    }
  }
  return std::nullopt;
}

// Path of a mapped file: "begin-end rwxp offset major:minor inode   path", device in hexadecimal.
std::optional<std::string> FindMapping(const std::filesystem::path& process,
                                       const MountEntry& mount) {
  const std::string device = fmt::format(" {:02x}:{:02x} ", mount.major, mount.minor);
  std::ifstream maps(process / "maps");
  for (std::string line; std::getline(maps, line);) {
    const std::size_t slash = line.find('/');
    const std::size_t at = line.find(device);
    if (at != std::string::npos && at < slash) {
      return slash == std::string::npos ? "a mapping" : line.substr(slash);
    }
  }
  return std::nullopt;
}

std::optional<std::string> FindUse(const std::filesystem::path& process, const MountEntry& mount) {
  for (const char* link : {"cwd", "root", "exe"}) {
    std::string target = ReadLink(process / link);
    if (IsBelow(target, mount.mount_point)) return target;
  }
  if (std::optional<std::string> open = FindOpenFile(process, mount)) return open;
  return FindMapping(process, mount);
}

std::string CommandLine(const std::filesystem::path& process) {
  std::ifstream file(process / "cmdline", std::ios::binary);
  std::string command(kCommandSizeMax, '\0');
  file.read(command.data(), static_cast<std::streamsize>(command.size()));
  command.resize(static_cast<std::size_t>(file.gcount()));
  while (!command.empty() && command.back() == '\0') command.pop_back();
  std::replace_if(
      command.begin(), command.end(), [](unsigned char c) { return c < ' '; }, ' ');
  return command;
}

}  // namespace

std::vector<MountUser> FindMountUsers(const MountEntry& mount, std::size_t count_max) {
  std::vector<MountUser> users;
  std::error_code error;
  for (std::filesystem::directory_iterator process("/proc", error), end;
       !error && process != end && users.size() < count_max; process.increment(error)) {
    const std::string name = process->path().filename();
    int pid = 0;
    if (std::from_chars(name.data(), name.data() + name.size(), pid).ec != std::errc()) continue;
    if (std::optional<std::string> use = FindUse(process->path(), mount)) {
      users.push_back({pid, CommandLine(process->path()), *std::move(use)});
    }
  }
  return users;
}

}  // namespace echofs::cmd
