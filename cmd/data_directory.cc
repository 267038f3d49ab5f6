#include "cmd/data_directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
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

}  // namespace

absl::StatusOr<UniqueFd> LockDataDirectory(const std::string& path) {
  ECHOFS_RETURN_IF_ERROR(PosixStorage()->MakeDirectories(path));
  const std::string lock_path = path + "/lock";
  UniqueFd lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (lock.get() < 0) return StatusFromErrno(errno, lock_path);
  ECHOFS_RETURN_IF_ERROR(Lock(lock.get(), path));
  return lock;
}

absl::StatusOr<DataDirectory> DataDirectory::Open(const std::string& path) {
  ECHOFS_ASSIGN_OR_RETURN(UniqueFd lock, LockDataDirectory(path));
  DataDirectory directory(path, std::move(lock));
  std::error_code ignored;
  std::filesystem::remove_all(directory.temporary(), ignored);
  for (const std::string& made : {directory.files(), directory.temporary()}) {
    ECHOFS_RETURN_IF_ERROR(PosixStorage()->MakeDirectories(made));
  }
  return directory;
}

}  // namespace echofs::cmd
