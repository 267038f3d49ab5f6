#include "cmd/data_directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "replication/status_macros.h"
#include "replication/storage.h"

namespace echofs::cmd {
namespace {

// A node that was killed a moment ago may still be putting its data in order.
constexpr absl::Duration kLockWaitMax = absl::Seconds(5);
constexpr absl::Duration kLockPollInterval = absl::Milliseconds(20);

absl::Status Lock(int descriptor, const std::string& path) {
  const absl::Time deadline = absl::Now() + kLockWaitMax;
  while (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return StatusFromErrno(errno, path + "/lock");
    if (absl::Now() >= deadline) {
      return absl::FailedPreconditionError(
          fmt::format("the data directory {} is in use by another echofs; stop that one, or choose "
                      "another --data-dir",
                      path));
    }
    absl::SleepFor(kLockPollInterval);
  }
  return absl::OkStatus();
}

// Makes the directory when it is missing, and those above it.
absl::Status MakePrivateDirectory(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  const std::filesystem::path above = std::filesystem::path(path).parent_path();
  std::error_code error;
  if (!above.empty()) std::filesystem::create_directories(above, error);
  if (error) return StatusFromErrno(error.value(), "make directory " + path);
  if (::mkdir(path.c_str(), 0700) != 0) {
    return errno == EEXIST ? absl::OkStatus() : StatusFromErrno(errno, path);
  }
  const std::string parent = std::filesystem::canonical(above.empty() ? "." : above, error);
  if (error) return StatusFromErrno(error.value(), "sync the directory of " + path);
  return PosixStorage()->SyncDirectory(parent);
}

// What is in it has the content of databases that not everybody may read.
absl::Status CloseToOthers(const std::string& path) {
  ECHOFS_RETURN_IF_ERROR(MakePrivateDirectory(path));
  struct stat info;
  if (::lstat(path.c_str(), &info) != 0) return StatusFromErrno(errno, path);
  if ((info.st_mode & 07777) == 0700 || ::chmod(path.c_str(), 0700) == 0) return absl::OkStatus();
  return StatusFromErrno(errno, "close to others " + path);
}

}  // namespace

absl::StatusOr<UniqueFd> LockDataDirectory(const std::string& path) {
  ECHOFS_RETURN_IF_ERROR(MakePrivateDirectory(path));
  const std::string lock_path = path + "/lock";
  UniqueFd lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (lock.get() < 0) return StatusFromErrno(errno, lock_path);
  ECHOFS_RETURN_IF_ERROR(Lock(lock.get(), path));
  return lock;
}

absl::StatusOr<DataDirectory> DataDirectory::Open(const std::string& path) {
  ECHOFS_ASSIGN_OR_RETURN(UniqueFd lock, LockDataDirectory(path));
  std::error_code error;
  const std::string real_path = std::filesystem::canonical(path, error);
  if (error) return StatusFromErrno(error.value(), path);
  DataDirectory directory(real_path, std::move(lock));
  std::filesystem::remove_all(directory.temporary(), error);
  ECHOFS_RETURN_IF_ERROR(PosixStorage()->MakeDirectories(directory.files()));
  for (const std::string& closed : {directory.log(), directory.temporary(), directory.orphans()}) {
    ECHOFS_RETURN_IF_ERROR(CloseToOthers(closed));
  }
  return directory;
}

}  // namespace echofs::cmd
