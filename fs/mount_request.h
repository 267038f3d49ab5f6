// What the FUSE callbacks share: the context of a request, and replies. Of mount_operations.cc and
// mount_file_operations.cc alone.
#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/mount_operations.h"
#include "replication/commit_acks.h"

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

// Runs `work`, which waits for the disk but for nothing that the mount has to serve, and sends the reply. Here, since
// handing it over means to wake another thread, and an application waits: while one thread is left that serves requests.
template <class Work>
void RunSync(fuse_req_t request, Work work) {
  MountContext& context = Context(request);
  if (context.waiting.fetch_add(1) + 1 < context.threads) {
    work();
  } else {
    context.workers->Post(std::move(work));
  }
  --context.waiting;
}

// For workers: does `operation`, which answers, when the transaction that it ends is acknowledged by the nodes in
// sync (D1). `logged`: what FileSystem::Log... said. `fail` answers with an error. Nobody sleeps meanwhile.
template <class Operation, class Fail>
void RunAcknowledged(fuse_req_t request, const absl::StatusOr<LogIndex>& logged,
                     Operation operation, Fail fail) {
  CommitAcks* const acks = Files(request).acks();
  if (!logged.ok()) return fail(logged.status());
  if (acks == nullptr || logged->value == 0) return operation();
  acks->Wait(*logged, [request, operation = std::move(operation),
                       fail = std::move(fail)](const absl::Status& status) mutable {
    Context(request).workers->Post(
        [status, operation = std::move(operation), fail = std::move(fail)]() mutable {
          status.ok() ? operation() : fail(status);
        });
  });
}

}  // namespace echofs::fs
