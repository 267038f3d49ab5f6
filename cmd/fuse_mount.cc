#include "cmd/fuse_mount.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <spdlog/spdlog.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "cmd/fusermount.h"
#include "cmd/mount_table.h"
#include "cmd/mount_users.h"
#include "replication/status_macros.h"

namespace echofs::cmd {
namespace {

constexpr const char* kFuseControl = "/sys/fs/fuse/connections";
constexpr int kMaxReadBytes = 1 << 20;
constexpr int kSymlinkDepthMax = 8;
constexpr std::size_t kMountUsersMax = 10;

bool IsRoot() { return ::geteuid() == 0; }

// Our mount, if it still exists.
std::optional<MountEntry> FindMount(const std::vector<MountEntry>& table, const MountRef& ref) {
  for (const MountEntry& entry : table) {
    if (entry.id == ref.id && entry.mount_point == ref.mount_point && entry.type == kMountType) {
      return entry;
    }
  }
  return std::nullopt;
}

absl::StatusOr<std::string> RealPath(const std::string& path) {
  const std::unique_ptr<char, void (*)(void*)> real(::realpath(path.c_str(), nullptr), std::free);
  if (real) return std::string(real.get());
  if (errno == ENOENT) {
    return absl::NotFoundError(fmt::format(
        "the mount directory {} does not exist; create it (mkdir -p) and start again", path));
  }
  return absl::FailedPreconditionError(
      fmt::format("the mount directory {} cannot be used: {}", path, std::strerror(errno)));
}

absl::Status Detach(const std::string& mount_point) {
  if (!IsRoot()) return FusermountUnmount(mount_point, /*lazy=*/true);
  if (::umount2(mount_point.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) return absl::OkStatus();
  return absl::InternalError(
      fmt::format("cannot unmount {}: {}", mount_point, std::strerror(errno)));
}

// Removes dead echofs mounts from `path`, a path whose last component is not a symbolic link.
absl::Status ClearDeadMounts(const std::string& path) {
  while (true) {
    const std::optional<MountEntry> mount = FindMountOn(ReadMountTable(), path);
    if (!mount || mount->type != kMountType) return absl::OkStatus();
    struct statfs unused;
    if (::statfs(path.c_str(), &unused) == 0) {
      return absl::AlreadyExistsError(
          fmt::format("{} is the mount of another echofs that is running; stop that one first, or "
                      "choose another directory",
                      path));
    }
    if (errno != ENOTCONN && errno != ECONNABORTED) {
      return absl::FailedPreconditionError(
          fmt::format("{} is the mount of another echofs, and it cannot be looked at: {}", path,
                      std::strerror(errno)));
    }
    ECHOFS_RETURN_IF_ERROR(Detach(path));
    spdlog::warn("removed the dead mount that an earlier echofs left on {}", path);
  }
}

absl::Status CheckEmptyDirectory(const std::string& path) {
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(path.c_str()), ::closedir);
  if (!directory) {
    return absl::FailedPreconditionError(
        errno == ENOTDIR
            ? fmt::format("{} is not a directory, so nothing can be mounted on it", path)
            : fmt::format("the mount directory {} cannot be read: {}", path, std::strerror(errno)));
  }
  while (const dirent* entry = ::readdir(directory.get())) {
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    return absl::FailedPreconditionError(fmt::format(
        "the mount directory {} is not empty (there is '{}'): the mount would hide what is in it; "
        "choose an empty directory",
        path, name));
  }
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> MountAsRoot(const std::string& mount_point, bool allow_other) {
  UniqueFd fd(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (fd.get() < 0) {
    return absl::UnavailableError(fmt::format(
        "cannot open /dev/fuse: {}; load the kernel module (modprobe fuse), or in a container pass "
        "the device in (--device /dev/fuse)",
        std::strerror(errno)));
  }
  const std::string options =
      fmt::format("fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,max_read={}{}",
                  fd.get(), kMaxReadBytes, allow_other ? ",allow_other" : "");
  if (::mount("echofs", mount_point.c_str(), std::string(kMountType).c_str(), MS_NOSUID | MS_NODEV,
              options.c_str()) == 0) {
    return fd;
  }
  return absl::InternalError(fmt::format(
      "cannot mount on {}: {}{}", mount_point, std::strerror(errno),
      errno == EPERM ? "; a container needs the capability for it (--cap-add SYS_ADMIN)" : ""));
}

bool WriteAbort(unsigned connection) {
  const UniqueFd fd(
      ::open(fmt::format("{}/{}/abort", kFuseControl, connection).c_str(), O_WRONLY | O_CLOEXEC));
  return fd.get() >= 0 && ::write(fd.get(), "1", 1) == 1;
}

// As WriteAbort where fusectl is not mounted: mounts it in a mount namespace of a child, so that
// nothing of it is left. Root only.
bool WriteAbortInNamespace(unsigned connection) {
  const pid_t child = ::fork();
  if (child == 0) {
    const bool mounted = ::unshare(CLONE_NEWNS) == 0 &&
                         ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
                         ::mount("fusectl", kFuseControl, "fusectl", 0, nullptr) == 0;
    ::_exit(mounted && WriteAbort(connection) ? 0 : 1);
  }
  int status = 0;
  return child > 0 && ::waitpid(child, &status, 0) == child && status == 0;
}

void AbortConnection(const MountEntry& mount, bool visible) {
  if (WriteAbort(mount.minor)) return;
  if (!IsRoot() || WriteAbortInNamespace(mount.minor)) return;
  // Aborts too, and may unmount on the way. It takes a path: only while our mount is what the path
  // means.
  if (visible) ::umount2(mount.mount_point.c_str(), MNT_FORCE | UMOUNT_NOFOLLOW);
}

// The mount that an open file is on.
int MountIdOf(int fd) {
  std::ifstream info(fmt::format("/proc/self/fdinfo/{}", fd));
  std::string key;
  int value = 0;
  while (info >> key) {
    if (key == "mnt_id:" && info >> value) return value;
  }
  return 0;
}

// Opens our mount's root, if it is what its path means, in a way that asks the daemon for nothing. As long as that is
// open, the number of its connection is given to no other mount: it may be written into abort.
UniqueFd Pin(const MountRef& ref) {
  UniqueFd root(::open(ref.mount_point.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  return root.get() >= 0 && MountIdOf(root.get()) == ref.id ? std::move(root) : UniqueFd();
}

void WarnAboutUsers(const MountEntry& mount) {
  const std::vector<MountUser> users = FindMountUsers(mount, kMountUsersMax);
  if (users.empty()) {
    spdlog::warn(
        "{} is still in use by a process that cannot be named; it is detached, and that process "
        "gets errors from now on",
        mount.mount_point);
  }
  for (const MountUser& user : users) {
    spdlog::warn(
        "{} is still in use by process {} ({}), which holds {}; it is detached, and that process "
        "gets errors from now on",
        mount.mount_point, user.pid, user.command, user.path);
  }
}

}  // namespace

absl::StatusOr<std::string> PrepareMountDirectory(const std::string& directory) {
  const std::size_t slash = directory.rfind('/');
  ECHOFS_CHECK(slash != std::string::npos);
  if (directory.size() == slash + 1) {
    return absl::FailedPreconditionError(
        fmt::format("{} cannot be the mount directory", directory));
  }
  // The path of a dead mount cannot be resolved, that of its parent can.
  ECHOFS_ASSIGN_OR_RETURN(std::string path,
                          RealPath(directory.substr(0, std::max<std::size_t>(slash, 1))));
  path = (path == "/" ? "" : path) + directory.substr(slash);
  for (int depth = 0; depth < kSymlinkDepthMax; ++depth) {
    ECHOFS_RETURN_IF_ERROR(ClearDeadMounts(path));
    ECHOFS_ASSIGN_OR_RETURN(const std::string real, RealPath(path));
    if (real == path) {
      ECHOFS_RETURN_IF_ERROR(CheckEmptyDirectory(path));
      return path;
    }
    path = real;
  }
  return absl::FailedPreconditionError(fmt::format("{} keeps changing", directory));
}

absl::StatusOr<FuseMount> MountFuse(const std::string& mount_point, bool allow_other) {
  FuseMount result;
  if (IsRoot()) {
    ECHOFS_ASSIGN_OR_RETURN(result.fd, MountAsRoot(mount_point, allow_other));
  } else {
    ECHOFS_ASSIGN_OR_RETURN(result.fd, FusermountMount(mount_point, allow_other, kMaxReadBytes));
  }
  const std::optional<MountEntry> entry = FindMountOn(ReadMountTable(), mount_point);
  if (!entry || entry->type != kMountType) {
    return absl::InternalError(
        fmt::format("mounted on {}, but the mount is not in /proc/self/mountinfo", mount_point));
  }
  result.ref = {entry->id, mount_point};
  return result;
}

absl::Status Unmount(const MountRef& ref) {
  const std::optional<MountEntry> mount = FindMount(ReadMountTable(), ref);
  if (!mount) return absl::OkStatus();
  if (IsRoot()) {
    if (::umount2(ref.mount_point.c_str(), UMOUNT_NOFOLLOW) == 0) return absl::OkStatus();
  } else if (FusermountUnmount(ref.mount_point, /*lazy=*/false).ok()) {
    return absl::OkStatus();
  }
  WarnAboutUsers(*mount);
  return Detach(ref.mount_point);
}

void AbortAndDetach(const MountRef& ref) {
  const UniqueFd pinned = Pin(ref);  // guardian and helper do this at the same time
  const std::vector<MountEntry> table = ReadMountTable();
  const std::optional<MountEntry> mount = FindMount(table, ref);
  if (!mount) return;
  const bool visible = FindMountOn(table, ref.mount_point)->id == ref.id;
  AbortConnection(*mount, visible);
  // The other one of guardian and helper may have been faster.
  if (!visible || !FindMount(ReadMountTable(), ref)) return;
  if (const absl::Status status = Detach(ref.mount_point); !status.ok()) {
    spdlog::debug("{}", std::string(status.message()));
  }
}

}  // namespace echofs::cmd
