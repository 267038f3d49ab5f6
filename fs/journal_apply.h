// Change sets into the database file of a rollback-mode database, on a replica (design A1, A4).
//
// The daemon holds RESERVED from Start on, so no application can become a writer, and no reader
// takes a journal for hot. To apply it takes PENDING, which lets no new reader in, and then
// EXCLUSIVE, which needs the last reader gone. It never waits for that: TryLock says who is in the
// way and keeps PENDING for a while, so the next try finds fewer readers and none starve the apply
// (A4). While EXCLUSIVE is held nobody reads the file, so pages are written in place; the kernel's
// copy is stored before the lock is released. Change sets that follow each other share one lock; who
// has how long is in lock_turns.h. A crash in the middle is repaired from the log: the same entries
// are applied again.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "fs/file_locks.h"
#include "fs/lock_turns.h"
#include "fs/page_cache.h"
#include "fs/page_run_writer.h"
#include "replication/storage.h"

namespace echofs::fs {

// One thread; ReadPage may come from another one while nothing is being written. Does not own
// `lock` and `cache`.
class JournalApply {
 public:
  // Takes RESERVED; Unavailable, with *blocked_by_pid, when an application is writing. `page_count`
  // of the database now.
  static absl::StatusOr<std::unique_ptr<JournalApply>> Start(
      std::shared_ptr<File> main, InodeNumber inode, DatabaseLock* lock, LockFile* lock_file,
      PageCache* cache, std::uint32_t page_size, std::uint32_t page_count, int* blocked_by_pid);

  struct Attempt {
    bool held = false;
    int blocked_by_pid = 0;       // when a reader is in the way; 0 when unknown
    absl::Duration readers_turn;  // when not zero: it is the readers' turn for so long
  };
  enum class Turn {
    kApply,  // leaves readers their turn
    kAny,    // for what happens once only, such as a whole copy
  };
  // PENDING and EXCLUSIVE; idempotent.
  absl::StatusOr<Attempt> TryLock(Turn turn);
  // With the lock: pages in ascending order, then Finish with the size afterwards. After an error
  // the file is neither old nor new.
  absl::Status WritePage(PageNumber number, ByteView page);
  absl::Status Finish(std::uint32_t page_count);
  // A change set is done: lets readers in if it is their turn.
  absl::Status EndChange();
  // Lets readers in again, whatever is held.
  absl::Status Unlock();
  // Lets readers in if EXCLUSIVE is held; PENDING is kept.
  absl::Status Rest();

  // Prepares for a database of another page size, all of whose pages are written next.
  void SetPageSize(std::uint32_t page_size);

  // Zeros beyond the end. `out` has the page size.
  absl::Status ReadPage(PageNumber number, MutableByteView out) const;

 private:
  JournalApply(std::shared_ptr<File> main, InodeNumber inode, DatabaseLock* lock, PageCache* cache,
               std::uint32_t page_size);

  const std::shared_ptr<File> main_;
  const InodeNumber inode_;
  DatabaseLock* const lock_;
  PageCache* const cache_;
  std::uint32_t page_size_;
  std::uint32_t page_count_ = 0;
  std::optional<PageRunWriter> writer_;
  LockTurns turns_;
  bool exclusive_ = false;
};

}  // namespace echofs::fs
