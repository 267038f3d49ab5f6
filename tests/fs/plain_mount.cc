#include "tests/fs/plain_mount.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "replication/status_macros.h"

namespace echofs::fs {
namespace {

// A file whose syncs fail when the cache's owner says so.
class FailingFile final : public File {
 public:
  FailingFile(std::unique_ptr<File> file, const std::function<bool()>* fail)
      : file_(std::move(file)), fail_(fail) {}
  absl::StatusOr<std::size_t> ReadAt(std::uint64_t offset, MutableByteView out) const override {
    return file_->ReadAt(offset, out);
  }
  absl::Status WriteAt(std::uint64_t offset, ByteView bytes) override {
    return file_->WriteAt(offset, bytes);
  }
  absl::Status Truncate(std::uint64_t size) override { return file_->Truncate(size); }
  absl::Status Sync() override {
    if (*fail_ && (*fail_)()) return absl::InternalError("sync fails by order of the test");
    return file_->Sync();
  }
  absl::StatusOr<std::uint64_t> Size() const override { return file_->Size(); }
  int Descriptor() const override { return file_->Descriptor(); }

 private:
  const std::unique_ptr<File> file_;
  const std::function<bool()>* const fail_;
};

}  // namespace

PlainPageCache::~PlainPageCache() {
  for (const auto& [number, node] : nodes_) close(node.descriptor);
}

absl::Status PlainPageCache::Store(InodeNumber inode, std::uint64_t offset, ByteView bytes) {
  const Node& node = nodes_.at(inode);
  if (!node.shm) {
    ++stores_outside_shm;
    std::vector<std::uint8_t> backing(bytes.size());
    const ssize_t n = pread(node.descriptor, backing.data(), backing.size(), offset);
    ECHOFS_CHECK(n == static_cast<ssize_t>(bytes.size()));
    ECHOFS_CHECK(std::equal(bytes.begin(), bytes.end(), backing.begin()));
    return absl::OkStatus();
  }
  // A2: whole aligned words; a single read mark is the exception (its slot's lock is held).
  const bool mark = bytes.size() == 4 && offset >= 104 && offset < 120;
  ECHOFS_CHECK(mark || (offset % 8 == 0 && bytes.size() % 8 == 0));
  if (before_shm_store) before_shm_store(offset, bytes.size());
  const ssize_t n = pwrite(node.descriptor, bytes.data(), bytes.size(), offset);
  ECHOFS_CHECK(n == static_cast<ssize_t>(bytes.size()));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::uint8_t>> PlainPageCache::Retrieve(InodeNumber inode,
                                                                   std::uint64_t offset,
                                                                   std::size_t size) {
  std::vector<std::uint8_t> bytes(size);
  if (retrieve_nothing) return std::vector<std::uint8_t>();
  const ssize_t n = pread(nodes_.at(inode).descriptor, bytes.data(), size, offset);
  ECHOFS_CHECK(n >= 0);
  bytes.resize(n);
  return bytes;
}

absl::Status PlainPageCache::Invalidate(InodeNumber inode, std::uint64_t, std::uint64_t) {
  ECHOFS_CHECK(nodes_.count(inode) == 1);
  return absl::OkStatus();
}

absl::Status PlainPageCache::InvalidateEntry(InodeNumber, const std::string&) {
  return absl::OkStatus();
}

InodeNumber PlainPageCache::Number(const std::string& path, bool shm) {
  InodeNumber& number = numbers_[path];
  if (number == 0) {
    number = nodes_.size() + 2;
    nodes_[number] = {open(path.c_str(), O_RDWR | O_CLOEXEC), shm};
    ECHOFS_CHECK(nodes_[number].descriptor >= 0);
  }
  return number;
}

void PlainPageCache::Forget(const std::string& path) { numbers_.erase(path); }

std::string PlainReplicaFiles::Path(sqlite::FileRole role) const {
  if (role == sqlite::FileRole::kWal) return path_ + std::string(sqlite::kWalSuffix);
  if (role == sqlite::FileRole::kJournal) return path_ + std::string(sqlite::kJournalSuffix);
  if (role == sqlite::FileRole::kShm) return path_ + std::string(sqlite::kShmSuffix);
  return path_;
}

absl::StatusOr<std::unique_ptr<File>> PlainReplicaFiles::OpenBacking(sqlite::FileRole role,
                                                                     bool create) {
  OpenOptions options;
  options.create = create;
  absl::StatusOr<std::unique_ptr<File>> file = PosixStorage()->Open(Path(role), options);
  if (!file.ok() || role != sqlite::FileRole::kWal) return file;
  return std::make_unique<FailingFile>(*std::move(file), &cache_->fail_wal_sync);
}

InodeNumber PlainReplicaFiles::Inode(sqlite::FileRole role) {
  return cache_->Number(Path(role), role == sqlite::FileRole::kShm);
}

absl::StatusOr<std::unique_ptr<LockFile>> PlainReplicaFiles::OpenLock(sqlite::FileRole role) {
  return LockFile::Open(Path(role));
}

absl::Status PlainReplicaFiles::Adopt(const std::string& temporary,
                                      const FileAttributes& attributes) {
  chmod(temporary.c_str(), attributes.mode);
  cache_->Forget(path_);
  return PosixStorage()->Rename(temporary, path_);
}

absl::Status PlainReplicaFiles::Remove(sqlite::FileRole role) {
  cache_->Forget(Path(role));
  const absl::Status removed = PosixStorage()->Remove(Path(role));
  return absl::IsNotFound(removed) ? absl::OkStatus() : removed;
}

absl::Status PlainReplicaFiles::SetAttributes(const FileAttributes& attributes) {
  for (const auto role :
       {sqlite::FileRole::kMain, sqlite::FileRole::kWal, sqlite::FileRole::kShm}) {
    chmod(Path(role).c_str(), attributes.mode);
  }
  return absl::OkStatus();
}

std::string PlainReplicaFiles::TemporaryPath() {
  return path_ + ".tmp" + std::to_string(++temporaries_);
}

}  // namespace echofs::fs
