#include "fs/file_locks.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "fs/sqlite_format.h"
#include "replication/status_macros.h"

namespace echofs::fs {
namespace {

struct flock Range(short type, std::uint64_t offset, std::uint64_t length) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(offset);
  lock.l_len = static_cast<off_t>(length);
  return lock;
}

short TypeOf(LockKind kind) { return kind == LockKind::kShared ? F_RDLCK : F_WRLCK; }

}  // namespace

absl::StatusOr<std::unique_ptr<LockFile>> LockFile::Open(const std::string& path) {
  const int descriptor = open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (descriptor < 0) {
    const int error = errno;
    const std::string message =
        fmt::format("cannot open {} to lock it: {}", path, std::strerror(error));
    return error == ENOENT ? absl::NotFoundError(message) : absl::InternalError(message);
  }
  return std::make_unique<LockFile>(descriptor);
}

LockFile::~LockFile() { close(descriptor_); }

absl::StatusOr<bool> LockFile::TryLock(LockKind kind, std::uint64_t offset, std::uint64_t length) {
  struct flock lock = Range(TypeOf(kind), offset, length);
  if (fcntl(descriptor_, F_OFD_SETLK, &lock) == 0) return true;
  if (errno == EAGAIN || errno == EACCES) return false;
  return absl::InternalError(
      fmt::format("cannot lock {} bytes at {}: {}", length, offset, std::strerror(errno)));
}

absl::Status LockFile::Unlock(std::uint64_t offset, std::uint64_t length) {
  struct flock lock = Range(F_UNLCK, offset, length);
  if (fcntl(descriptor_, F_OFD_SETLK, &lock) == 0) return absl::OkStatus();
  return absl::InternalError(
      fmt::format("cannot unlock {} bytes at {}: {}", length, offset, std::strerror(errno)));
}

int LockFile::ConflictingPid(LockKind kind, std::uint64_t offset, std::uint64_t length) const {
  struct flock lock = Range(TypeOf(kind), offset, length);
  if (fcntl(descriptor_, F_OFD_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) return 0;
  return lock.l_pid > 0 ? lock.l_pid : 0;
}

absl::StatusOr<bool> TrySharedLock(LockFile& main) {
  ECHOFS_ASSIGN_OR_RETURN(const bool pending,
                          main.TryLock(LockKind::kShared, sqlite::kPendingByte, 1));
  if (!pending) return false;
  absl::StatusOr<bool> shared =
      main.TryLock(LockKind::kShared, sqlite::kSharedFirst, sqlite::kSharedSize);
  ECHOFS_RETURN_IF_ERROR(main.Unlock(sqlite::kPendingByte, 1));
  return shared;
}

absl::StatusOr<bool> DatabaseLock::TryReserved() {
  return file_->TryLock(LockKind::kExclusive, sqlite::kReservedByte, 1);
}

absl::StatusOr<DatabaseLock::Attempt> DatabaseLock::TryExclusive(Pending pending) {
  if (!pending_) {
    ECHOFS_ASSIGN_OR_RETURN(pending_,
                            file_->TryLock(LockKind::kExclusive, sqlite::kPendingByte, 1));
    if (!pending_) {
      return Attempt{false, file_->ConflictingPid(LockKind::kExclusive, sqlite::kPendingByte, 1)};
    }
  }
  ECHOFS_ASSIGN_OR_RETURN(
      const bool held,
      file_->TryLock(LockKind::kExclusive, sqlite::kSharedFirst, sqlite::kSharedSize));
  if (held) return Attempt{true, 0};
  const Attempt attempt{false, file_->ConflictingPid(LockKind::kExclusive, sqlite::kSharedFirst,
                                                     sqlite::kSharedSize)};
  if (pending == Pending::kDrop) ECHOFS_RETURN_IF_ERROR(DropPending());
  return attempt;
}

absl::Status DatabaseLock::DowngradeToShared() {
  ECHOFS_ASSIGN_OR_RETURN(const bool shared, file_->TryLock(LockKind::kShared, sqlite::kSharedFirst,
                                                            sqlite::kSharedSize));
  ECHOFS_CHECK(shared);  // EXCLUSIVE or SHARED was ours
  pending_ = false;
  return file_->Unlock(sqlite::kPendingByte, 2);  // PENDING and RESERVED
}

absl::Status DatabaseLock::DowngradeToReserved() {
  ECHOFS_RETURN_IF_ERROR(file_->Unlock(sqlite::kSharedFirst, sqlite::kSharedSize));
  return DropPending();
}

absl::Status DatabaseLock::DropPending() {
  pending_ = false;
  return file_->Unlock(sqlite::kPendingByte, 1);
}

absl::Status DatabaseLock::UnlockAll() {
  pending_ = false;
  return file_->Unlock(sqlite::kPendingByte, 2 + sqlite::kSharedSize);
}

}  // namespace echofs::fs
