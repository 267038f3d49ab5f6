#include "fs/wal_index_repair.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstddef>
#include <fstream>
#include <memory>
#include <vector>

#include "fs/file_locks.h"
#include "fs/sqlite_format.h"
#include "replication/status_macros.h"

namespace echofs::fs {
namespace {

constexpr std::size_t kInitialized = 12;  // offset in a copy of the header
constexpr std::size_t kWord = 8;          // bytes that are stored in one piece

// The process of a thread; 0 when it cannot be told (gone, or in another pid namespace).
pid_t ProcessOf(pid_t thread) {
  std::ifstream status(fmt::format("/proc/{}/status", thread));
  std::string word;
  while (status >> word) {
    if (word != "Tgid:") continue;
    pid_t process = 0;
    status >> process;
    return process;
  }
  return 0;
}

}  // namespace

absl::Status RepairWalIndex(const WalIndexRepair& repair) {
  absl::StatusOr<std::unique_ptr<LockFile>> lock = LockFile::Open(repair.mounted_shm);
  if (absl::IsNotFound(lock.status()))
    return absl::OkStatus();  // the next connection makes a new one
  if (!lock.ok()) return lock.status();
  ECHOFS_ASSIGN_OR_RETURN(const bool locked,
                          (*lock)->TryLock(LockKind::kExclusive, sqlite::kShmWriteLock, 1));
  if (!locked) {
    const int holder = (*lock)->ConflictingPid(LockKind::kExclusive, sqlite::kShmWriteLock, 1);
    if (holder != 0 && holder != ProcessOf(repair.thread)) return absl::OkStatus();
  }
  struct stat st;
  if (lstat(repair.mounted_shm.c_str(), &st) != 0)
    return StatusFromErrno(errno, repair.mounted_shm);
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<File> shm,
                          repair.storage->Open(repair.backing_shm, {}));
  ECHOFS_ASSIGN_OR_RETURN(std::vector<std::uint8_t> headers,
                          repair.cache->Retrieve(st.st_ino, 0, sqlite::kWalIndexHeadersSize));
  if (headers.size() < sqlite::kWalIndexHeadersSize) {
    headers.resize(sqlite::kWalIndexHeadersSize);
    ECHOFS_RETURN_IF_ERROR(ReadZeroFilled(*shm, 0, headers));
  }
  if (!repair.capture->HasCommitUnknownTo(headers)) return absl::OkStatus();
  repair.capture->SetInDoubt();
  spdlog::info(
      "{}: a commit is in the WAL that its writer has not published, having ended or been told of "
      "an error; the transaction counts, and the next connection recovers the wal-index",
      repair.mounted_shm);
  // What applications have mapped comes first: the disk below may be what has failed.
  absl::Status written;
  for (const std::size_t copy : {std::size_t{0}, sqlite::kWalIndexHeadersSize / 2}) {
    headers[copy + kInitialized] = 0;
    const std::size_t begin = copy + kInitialized / kWord * kWord;
    const ByteView word = ByteView(headers).subspan(begin, kWord);
    ECHOFS_RETURN_IF_ERROR(repair.cache->Store(st.st_ino, begin, word));
    written.Update(shm->WriteAt(begin, word));
  }
  return written;
}

}  // namespace echofs::fs
