// The FUSE session: one operation in, one call on the FileSystem out (design section 1).
//
// The kernel's side of the contract: POSIX locks stay in the kernel; names that do not exist are cached; data
// is kept across opens; no extended attributes (ENOSYS); writes go through. All writers use this kernel's
// cache, so it is coherent; what the daemon changes itself, it stores or invalidates through page_cache().
//
// One thread a CPU, at least two, serves requests. A sync for which an application waits is made by the thread that took
// it, as long as one is left that serves; for waking another one takes as long as a quick disk. All other work that may
// wait goes to a pool of workers, and the reply is sent from there. What is done in the first way waits for the disk and
// for the queue of the log, which need nothing of the mount: so it cannot wait for itself.
//
// Opens that come from this process are answered with FOPEN_NOFLUSH and count for nothing: they are
// descriptors for locks.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/file_system.h"
#include "fs/fuse_metrics.h"
#include "fs/page_cache.h"

namespace echofs::fs {

struct MountOptions {
  int fuse_descriptor = -1;  // of /dev/fuse, mounted already; owned by the Mount from Start on
  std::string mount_point;   // absolute
  int threads = 0;           // that serve requests; 0: one a CPU
  FuseMetrics* metrics = nullptr;  // not owned; null: not counted
};

class Mount {
 public:
  // Serves requests from the time it returns. `file_system` must outlive the mount.
  static absl::StatusOr<std::unique_ptr<Mount>> Start(const MountOptions& options,
                                                      FileSystem* file_system);
  virtual ~Mount() = default;

  virtual PageCache* page_cache() = 0;
  // Waits until the session has ended: unmounted, aborted, or Stop was called.
  virtual void WaitUntilEnded() = 0;
  // Ends the session whether or not the kernel still has the mount: requests that come later stay
  // unanswered until the process ends. Replies that are due are sent first.
  virtual void Stop() = 0;
};

}  // namespace echofs::fs
