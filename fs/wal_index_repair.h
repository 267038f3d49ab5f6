// Design C3: a commit frame counts even if its writer dies before it updates the wal-index. Otherwise the next
// writer would overwrite a transaction that replicas have.
//
// When an application closes a -shm or -wal descriptor, its locks are still held: the kernel drops them after
// the FLUSH request has been answered. If the wal-index then does not know the last captured commit, and the
// WRITE lock is either the closing process's or free (then it is taken), no writer is between commit frame and
// wal-index but the one that is leaving. Both copies of the header are marked as not initialised, and the next
// connection recovers the wal-index from the WAL and finds the transaction.
//
// The same is done before an application is told of an error of a write or sync of the WAL, or of a write of the
// -shm (SQLite makes that one longer after the commit frame). Its transaction may be captured; SQLite gives it up
// all the same and publishes nothing. Again WRITE is that process's, or free: SQLite writes frames under WRITE
// alone, and whoever fails to sync in a checkpoint changes nothing here while another process holds it. With
// locking_mode=EXCLUSIVE the wal-index can be in that process's memory, and there is no -shm: it goes on with
// what it knows, and each of its writes is refused, being over captured frames, until it closes the database.
//
// Why the fields stay and only `isInit` goes. A connection that gives up its transaction copies the header back
// from the shared one without looking at isInit (sqlite3WalUndo), and may stay in its read transaction, since
// SELECTs of its own are not at their end. With the fields as they were it goes on reading its snapshot. With
// zeros it would read the database file without the WAL, and, finding its header equal to the shared one, could
// begin to write at frame 1, a new WAL over commits that are in no other place. What it writes in that read
// transaction is over captured frames and is refused. Every transaction that begins later looks at isInit
// (walIndexTryHdr), and recovers. Recovery needs WRITE, CKPT and RECOVER, so it waits for no reader, and it
// leaves the read marks alone that are in use (walIndexRecover). A reader that wants to write finds its header
// not equal to the shared one and gets SQLITE_BUSY_SNAPSHOT.
//
// A connection of the same process may publish at the same moment: then the header says its commit and is not
// initialised, or is as it wrote it; the first costs a recovery. Only the word with isInit is stored.
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
  std::string backing_shm;  // path of the backing file
  std::string mounted_shm;  // path of the same file through the mount
  pid_t thread = 0;         // the `pid` of the request: FLUSH, or the one that failed
};

// Invalidates the wal-index's header if that is right; OK when there was nothing to do. Opens a file through the
// mount: not for threads that serve requests. None of the pointers is owned.
absl::Status RepairWalIndex(const WalIndexRepair& repair);

}  // namespace echofs::fs
