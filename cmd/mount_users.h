// Which processes are inside a mount. Looks only into /proc and never at a file of the mount, so
// that it works while the mount's daemon is slow, stopped or dead.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "cmd/mount_table.h"

namespace echofs::cmd {

struct MountUser {
  int pid = 0;
  std::string command;  // its command line, shortened
  std::string path;     // what it holds: an open or mapped file, its working directory
};

// Processes of this machine (that the caller may look at) with an open file, a mapping, a working
// or root directory in the mount; at most `count_max` of them, one line each.
std::vector<MountUser> FindMountUsers(const MountEntry& mount, std::size_t count_max);

}  // namespace echofs::cmd
