#include "fs/mount_replica_files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>

#include "replication/failpoint.h"
#include "replication/parent_directory.h"
#include "replication/status_macros.h"

namespace echofs::fs {
namespace {

constexpr std::array kRoles = {sqlite::FileRole::kMain, sqlite::FileRole::kWal,
                               sqlite::FileRole::kShm};

std::string_view SuffixOf(sqlite::FileRole role) {
  switch (role) {
    case sqlite::FileRole::kWal:
      return sqlite::kWalSuffix;
    case sqlite::FileRole::kShm:
      return sqlite::kShmSuffix;
    case sqlite::FileRole::kJournal:
      return sqlite::kJournalSuffix;
    default:
      return "";
  }
}

absl::Status ApplyAttributes(const std::string& path, const FileAttributes& attributes) {
  // chmod(2) would follow a link, and has no other form for a file that its owner may not open.
  const int fd = OpenWithoutLinks(path, O_PATH, 0);
  if (fd < 0) return StatusFromErrno(errno, path);
  const bool done =
      chmod(fmt::format("/proc/self/fd/{}", fd).c_str(), attributes.mode & 07777) == 0 &&
      (geteuid() != 0 || fchownat(fd, "", attributes.uid, attributes.gid, AT_EMPTY_PATH) == 0);
  const int error = errno;
  close(fd);
  return done ? absl::OkStatus() : StatusFromErrno(error, path);
}

}  // namespace

std::string MountReplicaFiles::BackingPath(sqlite::FileRole role) const {
  return options_.root + "/" + options_.database + std::string(SuffixOf(role));
}

std::string MountReplicaFiles::MountPath(sqlite::FileRole role) const {
  return options_.mount_point + "/" + options_.database + std::string(SuffixOf(role));
}

absl::StatusOr<std::unique_ptr<File>> MountReplicaFiles::OpenBacking(sqlite::FileRole role,
                                                                     bool create) {
  ECHOFS_ASSIGN_OR_RETURN(const bool exists, options_.storage->Exists(BackingPath(role)));
  OpenOptions open;
  open.create = create;
  ECHOFS_ASSIGN_OR_RETURN(std::unique_ptr<File> file,
                          options_.storage->Open(BackingPath(role), open));
  if (!exists) {
    struct stat st;
    if (stat(BackingPath(sqlite::FileRole::kMain).c_str(), &st) == 0) {
      ECHOFS_RETURN_IF_ERROR(
          ApplyAttributes(BackingPath(role), {st.st_mode & 07777, st.st_uid, st.st_gid}));
    }
    // A sync of what is written to it shall not be in vain.
    if (role != sqlite::FileRole::kShm) {
      ECHOFS_RETURN_IF_ERROR(options_.storage->SyncDirectory(DirectoryOf(BackingPath(role))));
    }
    ForgetName(role);
  }
  return file;
}

InodeNumber MountReplicaFiles::Inode(sqlite::FileRole role) {
  struct stat st;
  return lstat(MountPath(role).c_str(), &st) == 0 ? st.st_ino : 0;
}

absl::StatusOr<std::unique_ptr<LockFile>> MountReplicaFiles::OpenLock(sqlite::FileRole role) {
  if (role == sqlite::FileRole::kMain && locks_.main) return std::move(locks_.main);
  if (role == sqlite::FileRole::kShm && locks_.shm) return std::move(locks_.shm);
  return LockFile::Open(MountPath(role));
}

void MountReplicaFiles::ForgetName(sqlite::FileRole role) {
  const std::string path = MountPath(role);
  std::size_t slash = options_.mount_point.size();
  while (true) {
    struct stat st;
    if (lstat(path.substr(0, slash).c_str(), &st) != 0) return;  // the kernel knows nothing below
    const std::size_t end = path.find('/', slash + 1);
    const std::string next = path.substr(0, end);
    struct stat ignored;
    // A directory that is there stays as it is.
    if (end == std::string::npos || lstat(next.c_str(), &ignored) != 0) {
      const absl::Status status =
          options_.cache->InvalidateEntry(st.st_ino, next.substr(slash + 1));
      if (!status.ok()) spdlog::warn("{}: {}", path, std::string(status.message()));
    }
    if (end == std::string::npos) return;
    slash = end;
  }
}

absl::Status MountReplicaFiles::Adopt(const std::string& temporary,
                                      const FileAttributes& attributes) {
  ECHOFS_RETURN_IF_ERROR(ApplyAttributes(temporary, attributes));
  const std::string path = BackingPath(sqlite::FileRole::kMain);
  ECHOFS_RETURN_IF_ERROR(options_.storage->MakeDirectories(DirectoryOf(path)));
  Failpoint("copy.rename.before");
  ECHOFS_RETURN_IF_ERROR(options_.storage->Rename(temporary, path));
  Failpoint("copy.rename.after");
  ECHOFS_RETURN_IF_ERROR(options_.storage->SyncDirectory(DirectoryOf(path)));
  ForgetName(sqlite::FileRole::kMain);
  return absl::OkStatus();
}

absl::Status MountReplicaFiles::Remove(sqlite::FileRole role) {
  const std::string path = BackingPath(role);
  const absl::Status removed = options_.storage->Remove(path);
  if (!absl::IsNotFound(removed)) {
    ECHOFS_RETURN_IF_ERROR(removed);
    ECHOFS_RETURN_IF_ERROR(options_.storage->SyncDirectory(DirectoryOf(path)));
  }
  ForgetName(role);  // also when recovery has removed the file below the mount
  return absl::OkStatus();
}

absl::Status MountReplicaFiles::SetAttributes(const FileAttributes& attributes) {
  for (const sqlite::FileRole role : kRoles) {
    ECHOFS_ASSIGN_OR_RETURN(const bool exists, options_.storage->Exists(BackingPath(role)));
    if (!exists) continue;
    ECHOFS_RETURN_IF_ERROR(ApplyAttributes(BackingPath(role), attributes));
    ECHOFS_RETURN_IF_ERROR(options_.cache->InvalidateAttributes(Inode(role)));
  }
  return absl::OkStatus();
}

std::string MountReplicaFiles::TemporaryPath() {
  static std::atomic<std::uint64_t> next{0};
  return fmt::format("{}/apply-{}-{}", options_.temporary_directory, getpid(), next++);
}

}  // namespace echofs::fs
