// Change sets into a WAL, on a replica, under live readers (design A1, A2, A3).
//
// The daemon is a SQLite connection in WAL mode that never leaves. From Start on it holds the dead
// man's switch shared and WRITE and CKPT exclusively on the -shm file (the owner holds SHARED on
// the database): nobody else writes, checkpoints, recovers, or removes the files, so of the
// wal-index applications change nothing but read marks.
//
// Append. A reader's view is the header of the wal-index that it copied: frames up to max_frame,
// through the hash tables. A change set becomes visible by the header alone, and the order is
//   1. frames to the backing file and to the kernel (readers of older headers never read them),
//   2. entries in the tables, in memory and then in the kernel (ignored by readers of older
//   headers),
//   3. the header in memory, then in the kernel copy 2 before copy 1.
// A page fault of a reader between any two steps is served from memory, where the same order holds:
// a new header is never found beside old tables or frames (A2). The commit frame is held back until
// Commit, so a change set that turns out to be wrong is gone by forgetting it (A6); after a crash
// the chain of checksums has no commit frame for it either.
//
// Checkpoint. mxSafeFrame starts as the last frame; then the read marks are retrieved from the
// kernel. That is the right order: WRITE is ours, so no header is published meanwhile, and whoever
// takes a slot after the retrieval checks the header after it has the lock and so reads at
// max_frame, which is safe. A slot whose mark is lower and whose lock is held bounds mxSafeFrame.
// When the kernel has dropped the page, the marks are taken as 0: any held slot then bounds
// everything. READ_LOCK(0), taken exclusively, keeps readers of the bare database file out while
// pages are written to it; other readers find those pages in the WAL. The WAL is synced before the
// database is written, and the database before nBackfill says so; only then can frames ever be
// overwritten.
//
// Restart. All frames backfilled and slots 1..4 locked: no reader uses the WAL, and one that tries
// later sees a changed header and starts anew. The new WAL header is synced before any frame is
// overwritten, or a crash could bring back a prefix of the old WAL over newer pages.
//
// Nothing here waits for a reader (A3), and neither -wal nor -shm ever shrinks.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/file_locks.h"
#include "fs/page_cache.h"
#include "fs/sqlite_format.h"
#include "fs/wal_index.h"
#include "replication/change_set.h"
#include "replication/storage.h"

namespace echofs::fs {

struct WalApplyFiles {
  std::shared_ptr<File> main;
  std::shared_ptr<File> wal;
  std::shared_ptr<File>
      shm;  // its size, and its content after Release; otherwise the wal-index is in memory
  InodeNumber main_inode = 0;
  InodeNumber wal_inode = 0;
  InodeNumber shm_inode = 0;
  std::unique_ptr<LockFile> wal_lock;  // keeps the inode known to the kernel
  std::unique_ptr<LockFile> shm_lock;
};

struct WalApplyOptions {
  std::uint32_t page_size = 0;             // bytes
  std::uint32_t page_count = 0;            // of the database file, for a WAL without frames
  std::uint32_t checkpoint_frames = 1000;  // new frames after which a checkpoint is tried
  // Called before pages go into the database file; see ReplicaDatabaseOptions.
  std::function<absl::Status()> sync_log = [] { return absl::OkStatus(); };
};

struct WalApplyStats {
  std::uint64_t checkpoints = 0;  // that moved nBackfill
  std::uint64_t restarts = 0;
};

// Driven by one thread at a time. ReadPage may be called by another one if no Commit, Checkpoint,
// TryRestart, Stop or Release runs meanwhile; index() is thread-safe.
class WalApply {
 public:
  // Joins the database as a connection. Committed frames in the -wal are kept, live readers stay
  // undisturbed: this is SQLite's recovery, done under WRITE, CKPT and RECOVER. A missing or
  // foreign WAL header is written anew with fresh salts. Unavailable when an application holds one
  // of the locks; then *blocked_by_pid says who, if known. Afterwards index() is complete and has
  // to serve the READs of -shm before Activate puts it into the kernel.
  static absl::StatusOr<std::unique_ptr<WalApply>> Start(WalApplyFiles files, PageCache* cache,
                                                         const WalApplyOptions& options,
                                                         int* blocked_by_pid);
  // Once, after Start: from now on readers can come.
  absl::Status Activate();
  // Releases the locks on -shm. What is in the kernel and in memory stays as it is.
  ~WalApply();

  // One change set: Begin, AddPage for each page, then Commit or Abandon. An error leaves the
  // committed state as it was; then call Abandon.
  void Begin();
  absl::Status AddPage(PageNumber number, ByteView page);
  // Publishes. `page_count` of the database afterwards. Without any AddPage, page 1 is written as
  // it is.
  absl::Status Commit(std::uint32_t page_count);
  // Takes back what was not published. After an error the object must be given up: what the kernel
  // holds of the tables is then not known.
  absl::Status Abandon();

  // The newest committed content, zeros for what was never written. `out` has the page size.
  absl::Status ReadPage(PageNumber number, MutableByteView out) const;

  // Checkpoint and restart when enough frames came since the last attempt.
  absl::Status MaybeCheckpoint();
  // Puts into the database file what the readers allow; true when that was everything.
  absl::StatusOr<bool> Checkpoint();
  // Starts the WAL from its beginning; false when frames are not backfilled or a reader uses the
  // WAL.
  absl::StatusOr<bool> TryRestart();

  // For a mode change: the caller holds EXCLUSIVE on the database, so nobody else is there. Puts
  // everything into the database file, synced; -wal and -shm may then be removed.
  absl::Status Stop();
  // For a database that lives on under other files: readers have to recover, and READs of the -wal, which the
  // owner fails from before this call on, are asked for again.
  absl::Status Retire();
  // For a role change: leaves WAL and wal-index to the applications as SQLite would, with the
  // wal-index in the backing -shm too. Locks are kept until destruction.
  absl::Status Release();

  // The WAL as it is now, up to its last committed frame.
  WalPosition End() const;
  const std::shared_ptr<WalIndex>& index() const { return index_; }
  const std::shared_ptr<File>& wal_file() const { return files_.wal; }
  const std::shared_ptr<File>& shm_file() const { return files_.shm; }
  std::uint32_t max_frame() const { return index_->header().max_frame; }
  bool fully_backfilled() const { return index_->backfill() == max_frame(); }
  const WalApplyStats& stats() const { return stats_; }
  // An application that holds a read mark, 0 when there is none or it is not known.
  int ReaderPid() const;

 private:
  WalApply(WalApplyFiles files, PageCache* cache, const WalApplyOptions& options);

  absl::Status TakeLocks(int* blocked_by_pid);
  absl::Status BuildIndex();
  // Writes and syncs a header, and makes it ours; after an error the one in the file is not known.
  absl::Status NewWalHeader(std::uint32_t sequence, std::uint32_t salt1);
  absl::Status WriteWalHeader(sqlite::WalHeader* header);
  // Frames of the WAL up to the last commit: their page numbers, and the header that covers them.
  struct Scan {
    std::optional<sqlite::WalHeader> wal_header;  // nothing: not a WAL of this database
    std::vector<PageNumber> pages;
    WalIndexHeader header;
  };
  absl::StatusOr<Scan> ScanWal() const;
  absl::Status ResetReadMarks(std::uint32_t max_frame);

  absl::Status EncodePending(std::uint32_t commit_page_count);
  absl::Status FlushFrames();
  absl::Status GrowShm();
  absl::Status StoreWord(std::uint64_t offset);
  absl::Status StoreIndex(const std::vector<WalIndex::Range>& ranges);
  absl::Status PublishHeader(const WalIndexHeader& header);
  absl::Status SetReadMark(int slot, std::uint32_t frame);
  std::optional<std::array<std::uint32_t, sqlite::kReadMarkCount>> RetrieveReadMarks();

  absl::StatusOr<std::uint32_t> SafeFrame(std::uint32_t max_frame);
  absl::Status Backfill(const WalIndexHeader& header, std::uint32_t safe_frame);
  absl::Status CopyFrames(const WalIndexHeader& header, std::uint32_t safe_frame);
  absl::Status SetDatabaseSize(std::uint32_t page_count);

  WalApplyFiles files_;
  PageCache* const cache_;  // not owned
  const WalApplyOptions options_;
  const std::shared_ptr<WalIndex> index_ = std::make_shared<WalIndex>();
  sqlite::WalHeader wal_header_;
  absl::Status broken_;  // not OK: the header in the file is not ours, nothing can be appended
  WalApplyStats stats_;
  std::uint64_t shm_size_ = 0;         // bytes, of the file
  std::uint32_t next_checkpoint_ = 0;  // frame at which MaybeCheckpoint tries again

  // The change set being appended. The last page is held back: its frame may be the commit frame.
  sqlite::WalChecksum chain_;
  std::vector<PageNumber> new_pages_;  // of the frames after max_frame
  PageNumber pending_number_ = 0;      // 0: none
  std::vector<std::uint8_t> pending_page_;
  std::vector<std::uint8_t> buffer_;  // encoded frames not yet written
  std::uint64_t buffer_offset_ = 0;   // in the WAL, of buffer_
};

}  // namespace echofs::fs
