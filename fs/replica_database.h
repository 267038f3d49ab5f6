// One database on a replica: change sets, copies and drops from the log into SQLite's files, under
// live readers (design section 6). No FUSE here: ReplicaFiles and PageCache stand for the mount.
//
// Which way a change set goes:
//   WAL       WalApply, whenever a -wal file is in use: readers and apply never block each other
//   (A2). rollback  JournalApply: needs the readers out for a moment, else the apply is Blocked
//   (A4). absent    pages go into a temporary file that is then renamed into place: no reader sees
//   half a database.
// SQLite uses a WAL whenever a -wal file is there, whatever bytes 18 and 19 of page 1 say. Two
// rules follow:
//   - When the primary leaves WAL mode while connections of this node are open (each holds SHARED
//   for its
//     life), the replica goes on with its WAL and removes it with the first later change set that
//     finds nobody there. So a mode change never blocks.
//   - A primary with locking_mode=EXCLUSIVE does not move the file change counter, by which readers
//   in rollback mode
//     notice that their cached pages are old. A change set that leaves bytes 24..39 of page 1 as
//     they are therefore switches to a WAL under the EXCLUSIVE lock; its readers drop their caches
//     when they find it. Leaving the WAL for rollback mode takes a change set that moves the
//     counter.
// A new page size needs the database alone, and replaces all pages. Connections to a WAL database hold SHARED
// for their life, so they could keep it waiting for ever: after reader_timeout the owner puts the
// new state under new files and retires this object (DatabaseSet::ReplaceUnderReaders).
//
// A copy, and single pages that take the database back from orphans to the cluster's history (R5), lead to a state
// that does not follow the present one. Its file change counter may be one that a connection's cache already has
// from a state that went. Unless it is higher than the present one, such a change therefore switches to a WAL too,
// and leaving that takes a change set with a counter that no state before had (counter_floor_). The same can come from
// change sets that follow each other: a transaction whose commit failed on the primary when it was in the log already
// is undone by the next one, which takes its counter back, and the one after that has it again.
//
// A6: the digest afterwards is compared before anything becomes visible: in WAL mode before the
// header is published, in rollback mode before the first page is written, as far as the change set
// fits into kVerifyBufferSize; larger ones are checked at the end. A mismatch stops the database:
// Apply fails until InstallCopy. Is the file itself damaged by then (a large set in rollback mode),
// readers stay locked out.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "fs/change_stream.h"
#include "fs/journal_apply.h"
#include "fs/page_cache.h"
#include "fs/replica_files.h"
#include "fs/wal_apply.h"
#include "replication/apply_target.h"
#include "replication/change_log.h"
#include "replication/log_entry.h"
#include "replication/metrics.h"

namespace echofs::fs {

struct ReplicaDatabaseOptions {
  // Makes the log durable up to this entry. Called before the database file is written: what gets to the disk there can
  // be redone from the log then, and never has to be undone. A WAL may be ahead of the log (FoldWal).
  std::function<absl::Status(LogIndex)> sync_log = [](LogIndex) { return absl::OkStatus(); };
  std::uint32_t checkpoint_frames = 1000;  // see WalApplyOptions
  // WAL size in frames from which on apply pauses, once each time it grew by as much again, so that
  // readers can leave and the WAL restart (A3); and the longest such pause.
  std::uint32_t pause_frames = 16000;
  absl::Duration pause_max = absl::Milliseconds(20);
  // See ReadersAreOverdue.
  absl::Duration reader_timeout = absl::InfiniteDuration();
  Metrics* metrics = UnobservedMetrics();  // not owned
};

struct ReplicaDatabaseStatus {
  DatabasePosition position;
  bool wal_mode = false;   // as page 1 says
  bool uses_wal = false;   // here and now; differs while a mode change waits for readers
  int blocked_by_pid = 0;  // of the last apply that was blocked, 0 when it was not, or not known
  absl::Status stopped;    // why nothing is applied until a copy is installed; OK otherwise
  std::uint32_t wal_frames = 0;
  WalApplyStats wal;
  std::uint64_t pauses = 0;
};

// Apply, InstallCopy, InstallPages, EndTurn and Close come from one thread at a time, which must not serve FUSE
// requests. The other functions are thread-safe. ReadShm and WriteShm take a lock that is only held
// for copying, so any FUSE thread may call them at any time.
class ReplicaDatabase {
 public:
  // `position` says where the files stand; with page_count 0 or dropped there are none. Files that
  // exist are joined as they are, readers and all: a WAL's committed frames count. Unavailable when
  // an application writes or holds a lock that is needed: then *blocked_by_pid, if known; try
  // again. Does not own `cache`.
  static absl::StatusOr<std::unique_ptr<ReplicaDatabase>> Open(
      std::unique_ptr<ReplicaFiles> files, PageCache* cache, const DatabasePosition& position,
      const ReplicaDatabaseOptions& options, int* blocked_by_pid);
  // The same in two steps, for files that applications have open: once it is created it can serve READs and
  // WRITEs of the -shm, and must, before Join changes what they have mapped. After an error of Join
  // give it up.
  static absl::StatusOr<std::unique_ptr<ReplicaDatabase>> Create(
      std::unique_ptr<ReplicaFiles> files, PageCache* cache, const DatabasePosition& position,
      const ReplicaDatabaseOptions& options);
  absl::Status Join(int* blocked_by_pid);
  // Releases all locks; the files stay as they are.
  ~ReplicaDatabase();

  // See ApplyTarget. On kBlocked nothing was read from `payload`. FailedPrecondition when the entry
  // does not follow the position. Other errors than DataLoss leave the old state; the entry may be
  // tried again.
  absl::StatusOr<ApplyOutcome> Apply(const LogEntry& entry, ByteSource& payload);
  // See ApplyTarget. The pages that differ become one change; `file` is deleted or renamed on
  // kApplied.
  absl::StatusOr<ApplyOutcome> InstallCopy(const DatabasePosition& position,
                                           const std::string& file);

  // See ApplyTarget. FailedPrecondition when there are no files.
  absl::StatusOr<ApplyOutcome> InstallPages(const DatabasePosition& position,
                                            const std::string& file, const PageSet& pages);

  // No change set follows at once: lets readers in. See ApplyTarget.
  absl::Status EndTurn();

  // True when a change that needs the database alone (a new page size) has been blocked for longer
  // than reader_timeout. Of the applying thread.
  bool ReadersAreOverdue() const;
  // The database lives on under other files: makes connections to these fail instead of showing an
  // old state for ever. The owner fails READs of the -wal before. A transaction that is open may
  // still end from what it has in memory; the next one finds no valid wal-index header, has to
  // recover, and gets the error of the WAL. The main file and the -shm stay readable, since both may
  // be mapped into applications.
  absl::Status Retire();

  // For a role change: lets go of all locks, with WAL and wal-index as SQLite wants them, so that
  // open connections of applications just go on, now as writers too. The -shm is served from its
  // backing file before the first lock is released. Only ReadShm, WriteShm and status may be called
  // afterwards. FailedPrecondition when the database is stopped: it must not be written.
  absl::Status Close();

  // How much of the present WAL has been applied; all zero without a WAL. Of the applying thread.
  WalPosition WalEnd() const;

  // Up to `count` pages (and not more than 4 MiB) of the newest committed state.
  absl::StatusOr<PageRun> ReadPages(PageNumber first, std::uint32_t count);
  // Makes everything that was applied durable in the files: WAL first, then the database.
  absl::Status SyncFiles();
  ReplicaDatabaseStatus status() const;
  DatabasePosition position() const;

  // READ and WRITE of the -shm file in the mount. Read returns how many bytes there are.
  absl::StatusOr<std::size_t> ReadShm(std::uint64_t offset, MutableByteView out) const;
  absl::Status WriteShm(std::uint64_t offset, ByteView bytes);
  // Never smaller than the kernel was told.
  absl::StatusOr<std::uint64_t> ShmSize() const;

 private:
  // What a change is to lead to.
  struct Target {
    DatabasePosition position;
    bool follows = true;  // the present state is one before it; else the two may have parted
  };
  // What the change does to page 1, as far as it decides about the mode.
  struct PageOne {
    bool wal_mode = false;
    bool counter_moved = false;
    std::uint32_t counter = 0;      // afterwards
    std::uint32_t old_counter = 0;  // before
  };
  ReplicaDatabase(std::unique_ptr<ReplicaFiles> files, PageCache* cache,
                  const DatabasePosition& position, const ReplicaDatabaseOptions& options);

  // Opening and closing.
  absl::Status Attach(int* blocked_by_pid);
  absl::Status StartWal(int* blocked_by_pid);
  absl::Status StartJournal(int* blocked_by_pid);
  absl::StatusOr<bool> WalFileExists();
  absl::Status Drop(const LogEntry& entry);
  void Detach();

  // Applying (replica_database_apply.cc). A target is the position that a change is to lead to.
  absl::Status CheckFollows(const LogEntry& entry) const;
  static ApplyOutcome NotReady(const JournalApply::Attempt& attempt);
  absl::StatusOr<JournalApply::Attempt> MakeReady(std::uint32_t page_size, JournalApply::Turn turn);
  absl::StatusOr<JournalApply::Attempt> AttachAgain();
  absl::StatusOr<bool> PauseForRestart();
  absl::StatusOr<JournalApply::Attempt> LeaveWal();
  // Whether there is a main file.
  bool Exists() const;
  BaseState Base();
  absl::Status Write(ChangeStream& stream, const Target& target);
  absl::Status WriteCopy(const std::string& file, const Target& target);
  absl::Status WritePatch(const std::string& file, const PageSet& pages, const Target& target);
  absl::Status WriteNew(ChangeStream& stream, const Target& target);
  absl::Status AdoptFile(const std::string& path, const Target& target);
  absl::Status WriteWal(ChangeStream& stream, std::optional<ChangeStream::Page> page,
                        const Target& target);
  absl::Status AppendFrames(ChangeStream& stream, std::optional<ChangeStream::Page> page,
                            const Target& target);
  absl::Status WriteInPlace(ChangeStream& stream, std::optional<ChangeStream::Page> page,
                            const PageOne& page_one, const Target& target);
  absl::Status WritePages(ChangeStream& stream, std::optional<ChangeStream::Page> page,
                          const Target& target, bool* touched);
  absl::Status CheckDigest(const ChangeStream& stream, const Target& target);
  absl::StatusOr<PageOne> InspectPageOne(const std::optional<ChangeStream::Page>& page,
                                         const Target& target);
  void SetAttributes(const FileAttributes& attributes);
  absl::Status Stop(absl::Status why);
  void SetPosition(const DatabasePosition& position);
  void UpdateStatus();

  const std::unique_ptr<ReplicaFiles> files_;
  PageCache* const cache_;
  const ReplicaDatabaseOptions options_;

  // Of the apply thread. Other threads read what wal_, journal_ and main_ point to, and the apply
  // thread changes them, and content that is visible, with content_mutex_ held: a committed state
  // stays still for as long as ReadPages needs. Serving a FUSE request never takes it, so PageCache
  // may be called.
  absl::Mutex content_mutex_;
  std::shared_ptr<File> main_;
  InodeNumber main_inode_ = 0;
  std::unique_ptr<LockFile> lock_file_;
  std::unique_ptr<DatabaseLock> lock_;
  std::unique_ptr<WalApply> wal_;  // at most one of the two is set
  std::unique_ptr<JournalApply> journal_;
  std::uint32_t next_pause_ = 0;  // frame
  absl::Time pause_until_ = absl::InfinitePast();
  absl::Time alone_wanted_since_ = absl::InfiniteFuture();  // see ReadersAreOverdue
  bool closed_ = false;
  std::uint32_t counter_floor_ =
      0;                  // caches of connections may have states up to this change counter
  bool damaged_ = false;  // main_ is neither old nor new; EXCLUSIVE stays ours

  // Held for copying only.
  mutable absl::Mutex mutex_ ABSL_ACQUIRED_AFTER(content_mutex_);
  ReplicaDatabaseStatus status_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<WalIndex> index_
      ABSL_GUARDED_BY(mutex_);                              // serves the -shm; null: shm_file_ does
  std::shared_ptr<File> shm_file_ ABSL_GUARDED_BY(mutex_);  // may be null too
};

}  // namespace echofs::fs
