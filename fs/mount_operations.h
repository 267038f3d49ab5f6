// The table of FUSE callbacks, and those about names, attributes and directories.
#pragma once

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#include <atomic>
#include <functional>

#include "fs/file_system.h"
#include "fs/fuse_metrics.h"
#include "fs/kernel_page_cache.h"
#include "fs/worker_pool.h"

namespace echofs::fs {

// What the callbacks work on: the session's user data. Owned by the mount.
struct MountContext {
  FileSystem* file_system = nullptr;
  KernelPageCache* page_cache = nullptr;
  WorkerPool* workers = nullptr;
  FuseMetrics* metrics = nullptr;  // null: not counted
  int threads = 0;                 // that serve requests
  std::atomic<int> waiting{0};     // of them, for the disk
  std::atomic<bool> ended{false};
  // A repair of a wal-index opens a file through the mount, a store of an old WAL may wait for a READ: both must be over
  // before nobody serves that.
  std::atomic<bool> stopping{false};
  std::atomic<int> repairs{0};
};

// The table of callbacks.
const fuse_lowlevel_ops& MountOperations();

}  // namespace echofs::fs
