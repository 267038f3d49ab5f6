#include "cmd/data_directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "replication/status_macros.h"
#include "replication/storage.h"

namespace echofs::cmd {

absl::StatusOr<DataDirectory> DataDirectory::Open(const std::string& path) {
  ECHOFS_RETURN_IF_ERROR(PosixStorage()->MakeDirectories(path));
  const std::string lock_path = path + "/lock";
  UniqueFd lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (lock.get() < 0) return StatusFromErrno(errno, lock_path);
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return StatusFromErrno(errno, lock_path);
    return absl::FailedPreconditionError(fmt::format(
        "the data directory {} is in use by another echofs; stop that one, or choose another --data-dir",
        path));
  }
  DataDirectory directory(path, std::move(lock));
  std::error_code ignored;
  std::filesystem::remove_all(directory.temporary(), ignored);
  for (const std::string& made : {directory.files(), directory.temporary()}) {
    ECHOFS_RETURN_IF_ERROR(PosixStorage()->MakeDirectories(made));
  }
  return directory;
}

}  // namespace echofs::cmd
