#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "replication/status_macros.h"
#include "replication/storage.h"

namespace echofs {
namespace {

absl::Status Failure(int error, std::string_view operation, const std::string& path) {
  return StatusFromErrno(error, fmt::format("{} {}", operation, path));
}

class PosixFile final : public File {
 public:
  PosixFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  ~PosixFile() override { ::close(fd_); }

  absl::StatusOr<std::size_t> ReadAt(std::uint64_t offset, MutableByteView out) const override {
    std::size_t done = 0;
    while (done < out.size()) {
      const ssize_t n =
          ::pread(fd_, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return Failure(errno, "read", path_);
      if (n == 0) break;
      done += static_cast<std::size_t>(n);
    }
    return done;
  }

  absl::Status WriteAt(std::uint64_t offset, ByteView bytes) override {
    std::size_t done = 0;
    while (done < bytes.size()) {
      const ssize_t n = ::pwrite(fd_, bytes.data() + done, bytes.size() - done,
                                 static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return Failure(errno, "write", path_);
      if (n == 0) return Failure(EIO, "write", path_);
      done += static_cast<std::size_t>(n);
    }
    return absl::OkStatus();
  }

  absl::Status Truncate(std::uint64_t size) override {
    int result;
    do {
      result = ::ftruncate(fd_, static_cast<off_t>(size));
    } while (result != 0 && errno == EINTR);
    return result == 0 ? absl::OkStatus() : Failure(errno, "truncate", path_);
  }

  // Not repeated after EINTR or an error: the kernel reports a lost write once only, and a second
  // call would then claim success.
  absl::Status Sync() override {
    return ::fdatasync(fd_) == 0 ? absl::OkStatus() : Failure(errno, "sync", path_);
  }

  absl::StatusOr<std::uint64_t> Size() const override {
    struct stat info;
    if (::fstat(fd_, &info) != 0) return Failure(errno, "stat", path_);
    return static_cast<std::uint64_t>(info.st_size);
  }

  int Descriptor() const override { return fd_; }

 private:
  const int fd_;
  const std::string path_;
};

// open(2), repeated while a signal interrupts it. Returns -1 with errno.
int OpenDescriptor(const std::string& path, int flags, mode_t mode) {
  int fd;
  do {
    fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  } while (fd < 0 && errno == EINTR);
  return fd;
}

class PosixStorageImpl final : public Storage {
 public:
  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path,
                                             const OpenOptions& options) override {
    const int flags = (options.read_only ? O_RDONLY : O_RDWR) | (options.truncate ? O_TRUNC : 0);
    // Two steps tell a file that we make, whose mode we set, from one that was there. They may
    // cross another process that makes or removes the file, so they are tried again a few times.
    for (int attempt = 0; attempt < 8; ++attempt) {
      if (!options.exclusive || !options.create) {
        const int fd = OpenDescriptor(path, flags, 0);
        if (fd >= 0) return std::make_unique<PosixFile>(fd, path);
        if (errno != ENOENT || !options.create) return Failure(errno, "open", path);
      }
      const int fd = OpenDescriptor(path, flags | O_CREAT | O_EXCL, options.mode);
      if (fd < 0 && errno == EEXIST && !options.exclusive) continue;
      if (fd < 0) return Failure(errno, "create", path);
      auto file = std::make_unique<PosixFile>(fd, path);
      if (::fchmod(fd, options.mode) != 0) {
        const int error = errno;
        ::unlink(path.c_str());
        return Failure(error, "set the mode of", path);
      }
      return file;
    }
    return Failure(EBUSY, "open", path);
  }

  absl::Status Remove(const std::string& path) override {
    return ::unlink(path.c_str()) == 0 ? absl::OkStatus() : Failure(errno, "remove", path);
  }

  absl::Status Rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) == 0) return absl::OkStatus();
    return Failure(errno, fmt::format("rename {} to", from), to);
  }

  absl::Status MakeDirectories(const std::string& path) override {
    std::error_code error;
    if (std::filesystem::is_directory(path, error)) return absl::OkStatus();
    const std::filesystem::path whole(path);
    const std::string parent = whole.parent_path().string();
    if (!whole.has_filename()) return MakeDirectories(parent);  // a slash at the end
    if (!parent.empty() && !std::filesystem::exists(parent, error)) {
      ECHOFS_RETURN_IF_ERROR(MakeDirectories(parent));
    }
    if (!std::filesystem::create_directory(path, error) && error) {
      return Failure(error.value(), "make directory", path);
    }
    return SyncDirectory(parent);
  }

  absl::Status SyncDirectory(const std::string& path) override {
    const int fd = OpenDescriptor(path.empty() ? "." : path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) return Failure(errno, "open directory", path);
    const int error = ::fsync(fd) == 0 ? 0 : errno;
    ::close(fd);
    return error == 0 ? absl::OkStatus() : Failure(error, "sync directory", path);
  }

  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(path.c_str()), &::closedir);
    if (directory == nullptr) return Failure(errno, "list", path);
    std::vector<std::string> names;
    for (;;) {
      errno = 0;
      const dirent* entry = ::readdir(directory.get());
      if (entry == nullptr) break;
      std::string name = entry->d_name;
      if (name != "." && name != "..") names.push_back(std::move(name));
    }
    if (errno != 0) return Failure(errno, "list", path);
    std::sort(names.begin(), names.end());
    return names;
  }

  absl::StatusOr<bool> Exists(const std::string& path) override {
    struct stat info;
    if (::lstat(path.c_str(), &info) == 0) return true;
    if (errno == ENOENT || errno == ENOTDIR) return false;
    return Failure(errno, "stat", path);
  }

  absl::StatusOr<std::uint64_t> FreeBytes(const std::string& path) override {
    struct statvfs info;
    if (::statvfs(path.c_str(), &info) != 0) return Failure(errno, "ask for the room on", path);
    const std::uint64_t blocks = ::geteuid() == 0 ? info.f_bfree : info.f_bavail;
    return blocks * info.f_frsize;
  }
};

}  // namespace

Storage* PosixStorage() {
  static PosixStorageImpl* const storage = new PosixStorageImpl;
  return storage;
}

}  // namespace echofs
