// The file interface: every durable byte of echofs (databases, logs, state) goes through it, so
// that tests can fail any operation or drop what was not synced. The real one is PosixStorage.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "replication/bytes.h"

namespace echofs {

// An open file. All functions may be called by any number of threads at once. Errors carry the path
// and errno's text, and are those of StatusFromErrno.
class File {
 public:
  virtual ~File() = default;

  // Reads at `offset`; returns how much was there: less than out.size() only at the end of the
  // file.
  virtual absl::StatusOr<std::size_t> ReadAt(std::uint64_t offset, MutableByteView out) const = 0;
  // Writes all of `bytes` or fails; after a failure a prefix may have been written.
  virtual absl::Status WriteAt(std::uint64_t offset, ByteView bytes) = 0;
  virtual absl::Status Truncate(std::uint64_t size) = 0;
  // Makes content and size durable (fdatasync).
  virtual absl::Status Sync() = 0;
  // A hint that this range has its content and will be synced: the disk may begin, so that Sync takes less. Reports no
  // errors; those come from Sync.
  virtual void StartSync(std::uint64_t /*offset*/, std::uint64_t /*size*/) {}
  virtual absl::StatusOr<std::uint64_t> Size() const = 0;
  // The descriptor for calls that are about metadata only (fstat, fchmod, fchown, futimens, fcntl
  // locks); -1 where there is none. Owned by this object.
  virtual int Descriptor() const = 0;
};

struct OpenOptions {
  bool create = false;     // make the file when it is missing
  bool exclusive = false;  // with create: AlreadyExists when it is there
  bool truncate = false;   // drop its content
  bool read_only = false;
  std::uint32_t mode = 0644;  // permission bits of a new file; the umask does not apply
};

// Names are absolute paths, or relative to the working directory. What is made, opened, renamed or removed is not reached
// through a symbolic link, not even in the directories above it. Thread-safe.
class Storage {
 public:
  virtual ~Storage() = default;

  virtual absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path,
                                                     const OpenOptions& options) = 0;
  virtual absl::Status Remove(const std::string& path) = 0;
  virtual absl::Status Rename(const std::string& from, const std::string& to) = 0;
  // Makes the directory and its missing parents, durably; OK when it exists.
  virtual absl::Status MakeDirectories(const std::string& path) = 0;
  // Makes creations, removals and renames in the directory durable.
  virtual absl::Status SyncDirectory(const std::string& path) = 0;
  // Names (not paths) of the entries of a directory but "." and "..", sorted.
  virtual absl::StatusOr<std::vector<std::string>> List(const std::string& path) = 0;
  virtual absl::StatusOr<bool> Exists(const std::string& path) = 0;
  // Bytes that can still be written to the file system that `path` is on.
  virtual absl::StatusOr<std::uint64_t> FreeBytes(const std::string& path) = 0;
};

// The file system of this machine. Lives for ever.
Storage* PosixStorage();

// open(2) that follows no symbolic link, not even in the directories above; one on the way is ELOOP. Users of the mount may
// make links in it, and what this process writes shall never go elsewhere. Close-on-exec; goes on after a signal. A
// descriptor, or -1 with errno.
int OpenWithoutLinks(const std::string& path, int flags, std::uint32_t mode);

// The status of a failed system call; `what` names the operation and the path. A full disk or quota
// is ResourceExhausted, a missing file NotFound, an existing one AlreadyExists, a refusal
// PermissionDenied, a name of the wrong kind (ENOTDIR, EISDIR, ENOTEMPTY) FailedPrecondition, an
// impossible argument InvalidArgument, anything else Internal. ErrnoOf gives `error` back.
absl::Status StatusFromErrno(int error, std::string_view what);

// The errno for a reply to the kernel: the one that the status was made from, else the nearest to
// its code; 0 for OK.
int ErrnoOf(const absl::Status& status);

// Fills `out` at `offset`, and with zeros what lies beyond the end of the file, as SQLite does.
absl::Status ReadZeroFilled(const File& file, std::uint64_t offset, MutableByteView out);

}  // namespace echofs
