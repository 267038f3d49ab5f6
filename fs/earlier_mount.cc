#include "fs/earlier_mount.h"

#include <dirent.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <climits>
#include <fstream>
#include <memory>

#include "fs/proc_stat.h"

namespace echofs::fs {
namespace {

constexpr std::size_t kThreadsKnownMax = 4096;
constexpr int kStartTimeField = 22;  // of /proc/PID/stat
constexpr std::string_view kDeleted = " (deleted)";

// The id of the mount of an open file, as /proc/PID/fdinfo says it (proc(5)); empty when that is gone.
std::string MountIdOf(pid_t thread, const char* descriptor) {
  std::ifstream info(fmt::format("/proc/{}/fdinfo/{}", thread, descriptor));
  for (std::string word; info >> word;) {
    if (word == "mnt_id:" && info >> word) return word;
  }
  return "";
}

// Each line of mountinfo begins with the id of a mount.
bool IsMounted(pid_t thread, std::string_view mount_id) {
  std::ifstream mounts(fmt::format("/proc/{}/mountinfo", thread));
  for (std::string line; std::getline(mounts, line);) {
    if (std::string_view(line).substr(0, line.find(' ')) == mount_id) return true;
  }
  return false;
}

bool HasFileOfRemovedMount(pid_t thread, const std::string& path_from_root) {
  const std::string directory = fmt::format("/proc/{}/fd", thread);
  const std::unique_ptr<DIR, int (*)(DIR*)> descriptors(opendir(directory.c_str()), closedir);
  if (!descriptors) return false;
  std::array<char, PATH_MAX> buffer;
  while (const dirent* const entry = readdir(descriptors.get())) {
    const ssize_t n =
        readlinkat(dirfd(descriptors.get()), entry->d_name, buffer.data(), buffer.size());
    if (n <= 0) continue;
    std::string_view link(buffer.data(), static_cast<std::size_t>(n));
    if (link.ends_with(kDeleted)) link.remove_suffix(kDeleted.size());
    if (link != path_from_root) continue;
    const std::string mount_id = MountIdOf(thread, entry->d_name);
    if (!mount_id.empty() && !IsMounted(thread, mount_id)) return true;
  }
  return false;
}

}  // namespace

bool EarlierMount::HasOpen(pid_t thread, const std::string& database) {
  if (thread <= 0) return false;
  const std::string stat = ReadProcStat(thread);
  const std::string_view started = ProcStatField(stat, kStartTimeField);
  const std::pair<pid_t, std::string> key(thread, database);
  {
    absl::MutexLock lock(&mutex_);
    const auto known = without_.find(key);
    if (known != without_.end() && known->second == started) return false;
  }
  if (HasFileOfRemovedMount(thread, "/" + database)) return true;
  absl::MutexLock lock(&mutex_);
  if (without_.size() >= kThreadsKnownMax) without_.clear();
  without_[key] = started;
  return false;
}

}  // namespace echofs::fs
