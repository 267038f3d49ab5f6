// Design C3: a commit frame counts even if its writer dies before it updates the wal-index. Otherwise the next
// writer would overwrite a transaction that replicas have.
//
// When an application closes a -shm or -wal descriptor, its locks are still held: the kernel drops them after
// the FLUSH request has been answered. If the wal-index then does not know the last captured commit, and the
// WRITE lock is either the closing process's or free (then it is taken), no writer is between commit frame and
// wal-index but the one that is leaving. Both copies of the header are cleared, and the next connection
// recovers the wal-index from the WAL and finds the transaction.
#pragma once

#include <sys/types.h>

#include <string>

#include "absl/status/status.h"
#include "fs/database_capture.h"
#include "fs/page_cache.h"
#include "replication/storage.h"

namespace echofs::fs {

struct WalIndexRepair {
  DatabaseCapture* capture = nullptr;
  PageCache* cache = nullptr;
  Storage* storage = nullptr;
  std::string backing_shm;   // path of the backing file
  std::string mounted_shm;   // path of the same file through the mount
  pid_t closing_thread = 0;  // the `pid` of the FLUSH request
};

// Clears the wal-index's header if that is right; OK when there was nothing to do. Opens a file through the
// mount: not for threads that serve requests. None of the pointers is owned.
absl::Status RepairWalIndex(const WalIndexRepair& repair);

}  // namespace echofs::fs
