#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "replication/parent_directory.h"
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

  void StartSync(std::uint64_t offset, std::uint64_t size) override {
    (void)::sync_file_range(fd_, static_cast<off_t>(offset), static_cast<off_t>(size),
                            SYNC_FILE_RANGE_WRITE);
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

class PosixStorageImpl final : public Storage {
 public:
  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path,
                                             const OpenOptions& options) override {
    const int flags = (options.read_only ? O_RDONLY : O_RDWR) | (options.truncate ? O_TRUNC : 0);
    // Two steps tell a file that we make, whose mode we set, from one that was there. They may
    // cross another process that makes or removes the file, so they are tried again a few times.
    for (int attempt = 0; attempt < 8; ++attempt) {
      if (!options.exclusive || !options.create) {
        const int fd = OpenWithoutLinks(path, flags, 0);
        if (fd >= 0) return std::make_unique<PosixFile>(fd, path);
        if (errno != ENOENT || !options.create) return Failure(errno, "open", path);
      }
      const int fd = OpenWithoutLinks(path, flags | O_CREAT | O_EXCL, options.mode);
      if (fd < 0 && errno == EEXIST && !options.exclusive) continue;
      if (fd < 0) return Failure(errno, "create", path);
      auto file = std::make_unique<PosixFile>(fd, path);
      if (::fchmod(fd, options.mode) != 0) {
        const int error = errno;
        (void)Remove(path);
        return Failure(error, "set the mode of", path);
      }
      return file;
    }
    return Failure(EBUSY, "open", path);
  }

  absl::Status Remove(const std::string& path) override {
    const ParentDirectory parent(path);
    if (parent.fd() >= 0 && ::unlinkat(parent.fd(), parent.name(), 0) == 0) return absl::OkStatus();
    return Failure(errno, "remove", path);
  }

  absl::Status Rename(const std::string& from, const std::string& to) override {
    const ParentDirectory source(from);
    if (source.fd() < 0) return Failure(errno, "rename", from);
    const ParentDirectory target(to);
    if (target.fd() >= 0 &&
        ::renameat(source.fd(), source.name(), target.fd(), target.name()) == 0) {
      return absl::OkStatus();
    }
    return Failure(errno, fmt::format("rename {} to", from), to);
  }

  absl::Status MakeDirectories(const std::string& path) override {
    // A slash at the end.
    if (path.size() > 1 && path.back() == '/') return MakeDirectories(DirectoryOf(path));
    if (const ParentDirectory parent(path); parent.fd() < 0 && errno == ENOENT) {
      ECHOFS_RETURN_IF_ERROR(MakeDirectories(DirectoryOf(path)));
    }
    const ParentDirectory parent(path);
    if (parent.fd() < 0) return Failure(errno, "make directory", path);
    if (::mkdirat(parent.fd(), parent.name(), 0777) == 0) return SyncDirectory(DirectoryOf(path));
    if (errno != EEXIST) return Failure(errno, "make directory", path);
    struct stat info;
    if (::fstatat(parent.fd(), parent.name(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
      return Failure(errno, "make directory", path);
    }
    return S_ISDIR(info.st_mode) ? absl::OkStatus() : Failure(ENOTDIR, "make directory", path);
  }

  absl::Status SyncDirectory(const std::string& path) override {
    const int fd = OpenWithoutLinks(path.empty() ? "." : path, O_RDONLY | O_DIRECTORY, 0);
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

int OpenWithoutLinks(const std::string& path, int flags, std::uint32_t mode) {
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags | O_CLOEXEC);
  how.mode = (flags & O_CREAT) != 0 ? mode & 07777 : 0;
  how.resolve = RESOLVE_NO_SYMLINKS;
  long fd;
  do {
    fd = ::syscall(SYS_openat2, AT_FDCWD, path.c_str(), &how, sizeof how);
  } while (fd < 0 && errno == EINTR);
  return static_cast<int>(fd);
}

Storage* PosixStorage() {
  static PosixStorageImpl* const storage = new PosixStorageImpl;
  return storage;
}

}  // namespace echofs
