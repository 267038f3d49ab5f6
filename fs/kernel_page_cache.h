// PageCache over FUSE notifications.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "fs/page_cache.h"

struct fuse_session;
struct fuse_bufvec;

namespace echofs::fs {

// Thread-safe. The session must outlive it.
class KernelPageCache final : public PageCache {
 public:
  explicit KernelPageCache(fuse_session* session) : session_(session) {}

  absl::Status Store(InodeNumber inode, std::uint64_t offset, ByteView bytes) override;
  absl::StatusOr<std::vector<std::uint8_t>> Retrieve(InodeNumber inode, std::uint64_t offset,
                                                     std::size_t size) override;
  absl::Status Invalidate(InodeNumber inode, std::uint64_t offset, std::uint64_t size) override;
  absl::Status InvalidateAttributes(InodeNumber inode) override;
  absl::Status InvalidateEntry(InodeNumber directory, const std::string& name) override;

  // The session brings the kernel's answer to a Retrieve.
  void OnRetrieveReply(std::uint64_t cookie, std::vector<std::uint8_t> bytes)
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Pending {
    bool done = false;
    std::vector<std::uint8_t> bytes;
  };

  fuse_session* const session_;
  absl::Mutex mutex_;
  std::uint64_t next_cookie_ ABSL_GUARDED_BY(mutex_) = 1;
  std::map<std::uint64_t, Pending> pending_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace echofs::fs
