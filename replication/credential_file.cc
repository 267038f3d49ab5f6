#include "replication/credential_file.h"

#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "replication/limits.h"

namespace echofs {
namespace {

std::int64_t Nanoseconds(const timespec& time) {
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

absl::Status CheckMode(const std::string& path, mode_t mode) {
  if ((mode & (S_IROTH | S_IWOTH | S_IWGRP)) == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      fmt::format("{} has mode {:04o}, so other users can {} it: `chmod 600 {}`, or 640 to let a "
                  "group read it",
                  path, mode & 07777, (mode & S_IROTH) != 0 ? "read" : "change", path));
}

absl::StatusOr<std::string> ReadAll(int fd, const std::string& path) {
  std::string text(kCredentialFileSizeMax + 1, '\0');
  std::size_t size = 0;
  while (size < text.size()) {
    const ssize_t n = ::read(fd, text.data() + size, text.size() - size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      return absl::FailedPreconditionError(
          fmt::format("cannot read {}: {}", path, strerror(errno)));
    }
    if (n == 0) break;
    size += static_cast<std::size_t>(n);
  }
  if (size > kCredentialFileSizeMax) {
    return absl::FailedPreconditionError(
        fmt::format("{} is larger than {} KiB, so it is not what it should be", path,
                    kCredentialFileSizeMax >> 10));
  }
  text.resize(size);
  return text;
}

}  // namespace

std::optional<FileStamp> StampOf(const std::string& path) {
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) return std::nullopt;
  return FileStamp{info.st_dev, info.st_ino, static_cast<std::uint64_t>(info.st_size),
                   Nanoseconds(info.st_mtim), Nanoseconds(info.st_ctim)};
}

absl::StatusOr<std::string> ReadCredentialFile(const std::string& path, bool secret) {
  int fd;
  do {
    // Not waiting for the other end, should it be a pipe.
    fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) {
    return absl::FailedPreconditionError(fmt::format("cannot read {}: {}", path, strerror(errno)));
  }
  struct stat info;
  absl::StatusOr<std::string> text = std::string();
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    text = absl::FailedPreconditionError(fmt::format("{} is no regular file", path));
  } else if (absl::Status bad = secret ? CheckMode(path, info.st_mode) : absl::OkStatus();
             !bad.ok()) {
    text = bad;
  } else {
    text = ReadAll(fd, path);
  }
  ::close(fd);
  return text;
}

}  // namespace echofs
