// The kernel's list of mounts, /proc/self/mountinfo (format: proc(5)).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace echofs::cmd {

// Type of our mounts as the kernel lists it.
inline constexpr std::string_view kMountType = "fuse.echofs";

struct MountEntry {
  int id = 0;
  unsigned major = 0;
  unsigned minor = 0;  // for FUSE also the number of the connection in fusectl
  std::string mount_point;
  std::string type;
};

// Lines that do not look like the format are left out.
std::vector<MountEntry> ParseMountTable(std::string_view text);

// In the kernel's order: of several mounts on one directory the last one is visible. Touches no
// file system but /proc.
std::vector<MountEntry> ReadMountTable();

// The visible mount on a directory, given by its real path.
std::optional<MountEntry> FindMountOn(const std::vector<MountEntry>& table,
                                      std::string_view mount_point);

}  // namespace echofs::cmd
