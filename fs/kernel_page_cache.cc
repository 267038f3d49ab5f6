#define FUSE_USE_VERSION 312
#include "fs/kernel_page_cache.h"

#include <fuse_lowlevel.h>

#include <cerrno>
#include <utility>

#include "absl/time/time.h"
#include "replication/storage.h"

namespace echofs::fs {
namespace {

// The kernel answers a retrieve in microseconds; it never does when the connection has ended.
constexpr absl::Duration kRetrieveTimeout = absl::Seconds(10);

// ENOENT: the kernel does not know the inode or the name, so there is nothing to change.
absl::Status Result(int rc, const char* what) {
  if (rc == 0 || rc == -ENOENT) return absl::OkStatus();
  return StatusFromErrno(-rc, what);
}

}  // namespace

absl::Status KernelPageCache::Store(InodeNumber inode, std::uint64_t offset, ByteView bytes) {
  fuse_bufvec buffer = FUSE_BUFVEC_INIT(bytes.size());
  buffer.buf[0].mem = const_cast<std::uint8_t*>(bytes.data());
  return Result(fuse_lowlevel_notify_store(session_, inode, static_cast<off_t>(offset), &buffer,
                                           static_cast<fuse_buf_copy_flags>(0)),
                "storing into the kernel's cache");
}

absl::StatusOr<std::vector<std::uint8_t>> KernelPageCache::Retrieve(InodeNumber inode,
                                                                    std::uint64_t offset,
                                                                    std::size_t size) {
  std::uint64_t cookie = 0;
  {
    absl::MutexLock lock(&mutex_);
    cookie = next_cookie_++;
    pending_[cookie];
  }
  const int rc = fuse_lowlevel_notify_retrieve(session_, inode, size, static_cast<off_t>(offset),
                                               reinterpret_cast<void*>(cookie));
  absl::MutexLock lock(&mutex_);
  Pending& pending = pending_[cookie];
  if (rc == 0) {
    mutex_.AwaitWithTimeout(absl::Condition(&pending.done), kRetrieveTimeout);
  }
  const bool done = pending.done;
  std::vector<std::uint8_t> bytes = std::move(pending.bytes);
  pending_.erase(cookie);
  if (rc == -ENOENT) return std::vector<std::uint8_t>();
  if (rc != 0) return Result(rc, "retrieving from the kernel's cache");
  if (!done) return absl::UnavailableError("the kernel did not answer a retrieve");
  return bytes;
}

absl::Status KernelPageCache::Invalidate(InodeNumber inode, std::uint64_t offset,
                                         std::uint64_t size) {
  return Result(fuse_lowlevel_notify_inval_inode(session_, inode, static_cast<off_t>(offset),
                                                 static_cast<off_t>(size)),
                "invalidating in the kernel's cache");
}

absl::Status KernelPageCache::InvalidateAttributes(InodeNumber inode) {
  // A negative offset means: attributes only.
  return Result(fuse_lowlevel_notify_inval_inode(session_, inode, -1, 0),
                "invalidating attributes in the kernel");
}

absl::Status KernelPageCache::InvalidateEntry(InodeNumber directory, const std::string& name) {
  return Result(fuse_lowlevel_notify_inval_entry(session_, directory, name.c_str(), name.size()),
                "invalidating a name in the kernel");
}

void KernelPageCache::OnRetrieveReply(std::uint64_t cookie, std::vector<std::uint8_t> bytes) {
  absl::MutexLock lock(&mutex_);
  const auto it = pending_.find(cookie);
  if (it == pending_.end()) return;
  it->second.bytes = std::move(bytes);
  it->second.done = true;
}

}  // namespace echofs::fs
