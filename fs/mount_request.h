// What the FUSE callbacks share: the context of a request, and replies. Of mount_operations.cc and
// mount_file_operations.cc alone.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/mount_operations.h"

namespace echofs::fs {

// The kernel's copies stay valid until the daemon says otherwise (design section 1).
constexpr double kCacheSeconds = 86400;
constexpr std::size_t kReadSizeMax = 1 << 20;  // bytes, as negotiated with the kernel

MountContext& Context(fuse_req_t request);
FileSystem& Files(fuse_req_t request);
Caller CallerOf(fuse_req_t request);
// The pid of a FUSE request is a thread's: ours when it is one of our tasks.
bool IsOwn(fuse_req_t request);

void ReplyStatus(fuse_req_t request, const absl::Status& status);
fuse_entry_param EntryParam(const Entry& entry);
void ReplyEntry(fuse_req_t request, const absl::StatusOr<Entry>& entry);

// Runs `work` here, or where it may wait. `work` sends the reply.
template <class Work>
void Run(fuse_req_t request, bool may_wait, Work work) {
  if (may_wait) {
    Context(request).workers->Post(std::move(work));
  } else {
    work();
  }
}

}  // namespace echofs::fs
