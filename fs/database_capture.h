// One database on the primary: what applications write to its files becomes change sets in the log
// (design C1 to C9). Between the mount, which brings every write, and the change log.
//
// Why it is right
//
// Two locks. `files_` orders what applications do to the files and what is captured of it. `logged_` guards
// what the log says: position, and where the newest logged content of each page is. Whoever takes both takes
// `files_` first. Every operation does its file I/O under the locks named below, so what was captured is
// what is in the file (C1).
//
// WAL. A write to the WAL goes into the file, then WalCapture finds the commits that it completes; they wait
// in `pending_`, in order, for the thread of the CaptureQueue, which calls LogPending: under `logged_` it
// reads the pages from the WAL and the old ones from the place `wal_pages_` or the database file says, and
// appends the entry (C9). This is right because nothing that it reads can change meanwhile: captured frames
// are never overwritten with the same salts (CheckWrite, C3), and whatever else overwrites them - the start of
// a new WAL, its removal, a checkpoint's write to the database file - waits until `pending_` is empty (C5).
// A checkpoint's write to the database file first syncs the log up to all captured frames. After the checkpoint SQLite
// may start the WAL anew (C5). And had a power loss kept new pages in the file but taken the end of the log, recovery would
// find that these pages are not changed by the WAL's commits that it puts into the log again.
// What a checkpoint writes is compared with the hashes of the logged frames: anything else would make the
// file differ from the history, and the digest with it, and is refused (C6).
//
// Rollback. While a valid journal exists, a write to the database file is preceded by hashing what it
// overwrites, once a page (`dirty_`). The operation that ends the journal's life - unlink, truncation, zeroed
// header - first appends the entry: pages whose hash differs from what it was, and the size (C4). If nothing
// differs it was a rollback and nothing is appended. If the application has been syncing, the log is synced
// before the journal goes. If the operation then fails, or the application rolls back, the transaction is
// still open with the hashes of what was just logged, so the way back is logged as a change set too.
//
// The application's sync of the database file promises one thing: the journal goes when the file can do without it. The
// log can promise that as well, and its sync is on the way anyway. So that of the file is put off (`main_sync_due_`) to
// the end of the journal, and is then not made if the entry has every page that the transaction wrote: after a power loss
// recovery writes the log's entries into the file (database_set_recovery.cc), and the log lets go of none before it has
// synced the files (SyncAll). In all other cases it is made there, before the journal goes: a rollback, a page that is as
// it was but was something else between, a database that the log does not have yet. It is not put off
//  - with a super-journal: the transaction counts when that is gone, and this journal, which could undo it, is still
//    there, but the entry is not in the log yet;
//  - in WAL mode, where the sync is a checkpoint's, or without a valid journal;
//  - when the last one is longer ago than kMainSyncInterval: that the disk fails is learned from syncs.
//
// Errors. A commit frame counts once it is in the file, also when its writer is told of an error afterwards: by
// its sync, or by a later write of the same transaction. SQLite then believes that the transaction failed.
// WalCapture::CatchUp comes before anything else that is done to the WAL, so an error while looking for commits hides none.
//
// A start of a new WAL, or its end, must prove that the database file has all that the log says (CheckCheckpointed); else
// it would drop a commit that replicas have. SQLite does it in such a state after an error, and when the wal-index is not
// this WAL's: a connection from before the node's restart, whose files are the earlier mount's, may open the -shm of this
// one. For the pages whose last write was a checkpoint's of their newest content the proof is that write (`in_file`); the
// others are read. From any error on (`in_doubt_`) all are.
//
// Neither. Before its first commit a database may be written freely; it becomes one change set when the last
// writing descriptor closes (C6). Afterwards such writes are refused.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "fs/commit_recorder.h"
#include "fs/journal_reader.h"
#include "fs/sqlite_format.h"
#include "fs/wal_capture.h"
#include "replication/apply_target.h"
#include "replication/change_log.h"
#include "replication/metrics.h"
#include "replication/storage.h"

namespace echofs::fs {

using sqlite::FileRole;

// The file of a database in a rollback mode is really synced so often, if the application syncs it all the time.
inline constexpr absl::Duration kMainSyncInterval = absl::Seconds(1);
// Captured commits of one database that may wait for the log; then its writers wait too.
inline constexpr std::size_t kPendingCommitsMax = 4096;

// What a capture needs from the node; outlives it.
struct CaptureContext {
  ChangeLog* log = nullptr;
  std::function<Term()> term;
  // This node may commit now (design R2). Asked at each commit, so it must be quick. Empty: always.
  std::function<bool()> may_commit;
  // Commits are to be acknowledged by other nodes (design D1): those of applications that sync, or all.
  bool acknowledged = false;
  bool acknowledged_always = false;
  absl::Duration main_sync_interval = kMainSyncInterval;
  // Called when LogPending has work; any thread, no lock of the caller's but the capture's own is held.
  std::function<void()> wake;
  Metrics* metrics = UnobservedMetrics();
};

// Thread-safe.
class DatabaseCapture {
 public:
  // `position`: where the log says the database stands; txid 0 for a file that is no database yet.
  DatabaseCapture(std::string name, DatabasePosition position, CaptureContext context);

  // The backing files, set before the first operation on the role; the main file first. A file that is set
  // already (the same inode) stays. What the file holds is looked at: commits in a WAL that the log lacks
  // are captured (design L5), so a hot journal must have been dealt with before.
  absl::Status SetFile(FileRole role, std::shared_ptr<File> file);

  absl::Status Write(FileRole role, std::uint64_t offset, ByteView bytes);
  absl::Status Truncate(FileRole role, std::uint64_t size);
  // Grows the file without content (fallocate).
  absl::Status Extend(FileRole role, std::uint64_t size);
  // Returns the entry that is to be acknowledged before the application is answered (D1); zero when none is.
  absl::StatusOr<LogIndex> Sync(FileRole role);
  // Before Sync: true when the log can take the place of this sync, so that none is to be made.
  bool PutOffSync(FileRole role);
  // The same for what was written to the WAL up to now, whether or not the application syncs: waits until it is in
  // the log.
  absl::StatusOr<LogIndex> CommitsToAcknowledge();
  // Puts the transaction of the rollback journal into the log, as the operation that ends the journal does, and
  // returns the entry that is to be acknowledged before that operation; zero when none is.
  absl::StatusOr<LogIndex> LogTransaction();
  // The write would end the journal.
  bool EndsJournal(std::uint64_t offset, ByteView bytes);
  // Whether this offset in the WAL lies within a frame's page, and not at its begin or end, and the file has `size` more
  // bytes behind it. A WAL that grows and is large gets them here, as zeros; the caller is then a writer into the WAL.
  bool HasBytesBehindPartOfFrame(std::uint64_t offset, std::uint64_t size);
  // The application is told that its commit in the WAL failed, which may not be so (C3).
  void SetInDoubt();
  // The application removes the file: does what must come before and after `unlink`. A WAL that alone holds a
  // commit is kept (FailedPrecondition), unless it is `abandoned`, nobody having the database open: then the
  // database as it is without the WAL becomes a change set.
  absl::Status Remove(FileRole role, const std::function<absl::Status()>& unlink,
                      bool abandoned = false);
  // The last descriptor that may write to the main file was closed. When it fails, LogPending tries again.
  absl::Status LastWriterClosed();
  // ---- For role changes (design R2, R4) ----
  // From now on nothing is captured: writes that would commit, or belong to a transaction in the WAL, are
  // refused with EIO; rolling back and checkpoints go on. When it returns OK, all that was captured is in the log.
  absl::Status Fence();
  void Unfence();
  // A rollback journal is valid: a transaction is open, or its writer died.
  bool HasJournal();
  // Ends the transaction of a writer that died. `recover` undoes it in the file, or says that it counts (true)
  // because its super-journal is gone. The caller holds EXCLUSIVE on the database, and removes the journal
  // afterwards. DataLoss when the file is not what the log says, and it is too late to log it (fenced).
  absl::Status EndHotJournal(const std::function<absl::StatusOr<bool>()>& recover);

  // ---- For recovery, before applications come ----
  // A transaction was committed, but its journal is still there (its super-journal is gone): takes it as if
  // the journal ended now. Not for one that is in the log already: the journal's pages count as those of the log's
  // position, and the digest would be wrong. The caller removes the journal then.
  absl::Status TakeJournal(const JournalContent& content);
  // Digest of what the files hold, by reading every page.
  absl::StatusOr<std::uint64_t> ScanDigest();
  // Appends the database as it is, every page of it.
  absl::Status RecordWhole();

  // C3: given the start of the -shm file, whether a commit has been captured that the wal-index does not know:
  // its writer may have died between the two, or believes that it failed.
  bool HasCommitUnknownTo(ByteView shm);
  // Such a commit was found. Until it is known that the database file has it, the WAL is not started anew.

  // True when the operation at hand could wait (for pending commits, or a sync): run it where waiting is
  // allowed. For Write on kMain and kWal, and for all other operations.
  bool WriteMayWait(FileRole role, std::uint64_t offset, std::uint64_t size);
  bool EndOfJournalMayWait();

  // Takes one commit from the queue into the log. False when there was none, or it failed and must be tried
  // again later (the error is kept for Drain and the next write).
  bool LogPending();
  bool HasPending();
  // Waits until all captured commits are in the log, or an attempt has failed.
  absl::Status Drain();

  // True once a header of SQLite has been written or found.
  bool is_database();
  // What the log knows.
  DatabasePosition position();
  bool wal_mode();
  // See ApplyTarget::ReadPages.
  absl::StatusOr<PageRun> ReadPages(PageNumber first, std::uint32_t count);

 private:
  absl::Status WriteMain(std::uint64_t offset, ByteView bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_);
  absl::Status WriteWal(std::uint64_t offset, ByteView bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_);
  absl::Status WriteJournal(std::uint64_t offset, ByteView bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_);
  absl::Status TruncateMain(std::uint64_t size) ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_);
  absl::Status RemoveMain(const std::function<absl::Status()>& unlink)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_);
  absl::Status RestartWal() ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_);
  // Somebody throws the WAL away, or overwrites its header without being SQLite.
  absl::Status DiscardWal() ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_);
  void ForgetWal() ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_, logged_);
  absl::Status CatchUpWal() ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_);
  absl::Status CheckCheckpointed() ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_, logged_);
  // A page whose newest committed content is in the WAL alone.
  absl::StatusOr<std::optional<PageNumber>> PageNotInFile()
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_, logged_);
  // A checkpoint has written, or not been able to.
  void NoteCheckpoint(std::uint64_t offset, ByteView bytes, bool written)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_, logged_);
  absl::Status WriteFrames(std::uint64_t offset, ByteView bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_);
  absl::Status CheckLogRoom(std::uint64_t offset, ByteView bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_, logged_);
  absl::Status LogNewDatabase() ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_);
  absl::Status DrainLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_);
  absl::Status SetWal(std::shared_ptr<File> file) ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_);
  // Takes the commits of the WAL file as it is.
  absl::Status LoadWal() ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_);
  absl::Status LoadMain() ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_);
  void Enqueue(std::vector<WalCommit> commits) ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_);
  bool NeverCommitted() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(logged_);
  // Says why once in the log.
  absl::Status Refuse(std::string_view what) ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_);

  // Remembers what pages [first, last] are before they change.
  absl::Status RememberPages(PageNumber first, PageNumber last)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_, logged_);
  absl::Status LookAtJournal() ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_);
  absl::Status EndTransaction() ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_);
  // Its entry. False when the transaction leaves everything as the log has it.
  absl::StatusOr<bool> RecordTransaction() ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_, logged_);
  // Whether the log's entry can take the place of a sync of the main file that is asked for now.
  bool MainSyncCanBePutOff() ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_);
  absl::Status EndCreation() ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_, logged_);
  absl::Status TakeJournalLocked(const JournalContent& content)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_);
  // Nothing may be committed, for the role changes or the lease has run out.
  bool Fenced() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_) {
    return fenced_ || (!repairing_ && context_.may_commit && !context_.may_commit());
  }
  absl::Status RefuseFenced() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_);
  // Whether the open transaction differs from what the log says.
  absl::StatusOr<bool> DirtyPagesDiffer() ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_, logged_);
  void ForgetTransaction() ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_);
  absl::Status RecordMainFile(bool whole) ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_, logged_);
  absl::Status RecordWalCommit(const WalCommit& commit) ABSL_EXCLUSIVE_LOCKS_REQUIRED(logged_);
  // C6: in WAL mode SQLite writes nothing but logged pages into the main file. FailedPrecondition for others.
  absl::Status CheckCheckpoint(std::uint64_t offset, ByteView bytes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_, logged_);
  // A checkpoint may cut off pages that a commit has added since it began: they are in the WAL (C5).
  absl::Status CheckCheckpointTruncation(std::uint64_t size)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_, logged_);
  absl::StatusOr<bool> IsPartOfNewest(PageNumber page, std::uint64_t at, ByteView part)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(files_, logged_);
  absl::StatusOr<std::uint64_t> OldHash(PageNumber page) ABSL_EXCLUSIVE_LOCKS_REQUIRED(logged_);
  absl::StatusOr<sqlite::DatabaseHeader> ReadMainHeader();

  const std::string name_;
  const CaptureContext context_;

  absl::Mutex files_;
  std::shared_ptr<File> main_;
  std::shared_ptr<File> journal_;
  std::shared_ptr<File> wal_;
  bool is_database_ ABSL_GUARDED_BY(files_) = false;
  bool wal_mode_ ABSL_GUARDED_BY(files_) = false;
  bool refusal_logged_ ABSL_GUARDED_BY(files_) = false;
  bool fenced_ ABSL_GUARDED_BY(files_) = false;
  // This node itself ends what an application left: that needs no lease.
  bool repairing_ ABSL_GUARDED_BY(files_) = false;

  // The open transaction of a rollback journal.
  bool journal_valid_ ABSL_GUARDED_BY(files_) = false;
  bool journal_unread_ ABSL_GUARDED_BY(files_) = false;  // an error left open whether it is valid
  bool application_syncs_ ABSL_GUARDED_BY(files_) = false;
  bool main_sync_due_ ABSL_GUARDED_BY(files_) = false;        // the application believes it done
  bool entry_has_all_pages_ ABSL_GUARDED_BY(files_) = false;  // that the transaction has written
  absl::Time main_synced_at_ ABSL_GUARDED_BY(files_) = absl::InfinitePast();
  absl::flat_hash_map<PageNumber, std::uint64_t> dirty_ ABSL_GUARDED_BY(files_);
  // The log was seen to have room for an entry of so many bytes.
  std::uint64_t log_room_ ABSL_GUARDED_BY(files_) = 0;

  std::unique_ptr<WalCapture> wal_capture_ ABSL_GUARDED_BY(files_);
  std::deque<WalCommit> pending_ ABSL_GUARDED_BY(files_);
  absl::Status log_failure_ ABSL_GUARDED_BY(files_);
  bool in_doubt_ ABSL_GUARDED_BY(files_) = false;
  // A new database was closed, and the log did not take it.
  bool new_database_due_ ABSL_GUARDED_BY(files_) = false;

  absl::Mutex logged_ ABSL_ACQUIRED_AFTER(files_);
  DatabasePosition position_ ABSL_GUARDED_BY(logged_);
  struct WalPage {
    std::uint32_t frame;
    std::uint64_t hash;
    bool in_file = false;  // the database file has it
  };
  // Newest logged frame of each page in the present WAL.
  absl::flat_hash_map<PageNumber, WalPage> wal_pages_ ABSL_GUARDED_BY(logged_);
  // Hashes of all logged pages in the present WAL: a checkpoint may write one that a commit meanwhile replaces.
  absl::flat_hash_set<std::uint64_t> wal_hashes_ ABSL_GUARDED_BY(logged_);
};

}  // namespace echofs::fs
