// The implementation of ChangeLog. change_log.cc appends, syncs and answers; change_log_open.cc
// recovers what is on disk; change_log_cut.cc takes entries away.
//
// Three locks that are held across I/O are flags under mu_, so that readers and positions never
// wait for a disk: the write lock (one writer, from Begin to Commit; also segment changes), the
// sync lock (one fdatasync at a time) and the cut lock (Retain, TruncateAfter, Reset). Order: cut,
// write, sync.
//
// Steps on disk, each of which may be the last one before a crash (L2, D4):
//   roll:     sync the old segment; write the new one as new.tmp, sync; rename; sync the directory.
//   truncate: lower the watermark, durably; remove later segments, the last one first, syncing the
//   directory
//             after each; truncate the last kept segment; sync it.
//   reset:    write the new segment as new.tmp, sync; rename to reset.next; sync the directory:
//   from here on
//             it is done or redone by Open. Then: watermark; remove all segments; sync the
//             directory; rename reset.next; sync the directory.
//   retain:   remove the oldest segment; sync the directory; again.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "replication/change_log.h"
#include "replication/log_catalog.h"
#include "replication/log_reader.h"
#include "replication/log_segment.h"
#include "replication/log_watermark.h"

namespace echofs {

// Names in the log's directory beside the segments.
inline constexpr char kNewSegmentName[] = "new.tmp";
inline constexpr char kResetSegmentName[] = "reset.next";
inline constexpr char kWatermarkName[] = "synced";

// A segment and how much of it is committed.
struct SegmentSlot {
  std::shared_ptr<LogSegment> segment;
  std::uint64_t end = 0;  // bytes
};

// What Open found: the last slot is the one to append to.
struct RecoveredLog {
  std::vector<SegmentSlot> slots;
  std::shared_ptr<File> file;  // of the last slot
  LogCatalog catalog;
  TermHistory terms;
  LogIndex last;
  Term last_term;
  std::unique_ptr<SyncWatermark> watermark;
};

// Brings a directory into order and reads what must be known of it. Everything that is left is
// durable.
absl::StatusOr<RecoveredLog> RecoverLog(const std::string& directory,
                                        const ChangeLogOptions& options);

// The second half of a reset: reset.next takes the place of all segments. For the log and its
// recovery.
absl::Status FinishReset(Storage* storage, const std::string& directory, LogIndex base,
                         SyncWatermark* watermark);

// Writes the records of a segment from `begin` to `end` again, syncs, and reads them back: after a
// failed sync the kernel counts them as clean although they are not on disk, and may have dropped
// them.
absl::Status RewriteAndSync(Storage* storage, File* file, const std::string& path,
                            std::uint64_t begin, std::uint64_t end);

// Removes the segments with a base from `from` on, durably, the last one first.
absl::Status RemoveSegments(Storage* storage, const std::string& directory, LogIndex from);

class ChangeLogImpl final : public ChangeLog, public ReadableLog {
 public:
  ChangeLogImpl(std::string directory, const ChangeLogOptions& options, RecoveredLog recovered);

  absl::StatusOr<std::unique_ptr<EntryWriter>> Begin(const LogEntry& entry) override;
  absl::Status CheckRoom(std::uint64_t bytes) const override;
  absl::Status Sync(LogIndex index) override;
  absl::Status Reset(LogIndex base, Term base_term, const std::vector<DatabasePosition>& catalog,
                     const TermHistory& terms) override;
  using ChangeLog::Reset;
  absl::Status TruncateAfter(LogIndex index) override;
  absl::Status Retain(LogIndex needed) override;

  LogIndex first_index() const override;
  LogIndex last_index() const override;
  LogIndex synced_index() const override;
  Term last_term() const override;
  absl::StatusOr<Term> TermAt(LogIndex index) const override;
  std::uint64_t size_bytes() const override;
  absl::StatusOr<DatabasePosition> Position(const std::string& database) const override;
  std::vector<DatabasePosition> Positions() const override;
  LogState State() const override;
  TermHistory Terms() const override;
  std::unique_ptr<LogReader> Read(LogIndex from) const override;
  LogIndex WaitForIndex(LogIndex index, absl::Time deadline) const override;

  absl::StatusOr<std::optional<Span>> Locate(LogIndex index) const override;
  std::uint64_t truncations() const override;
  absl::StatusOr<std::uint64_t> CheckKept(LogIndex index, std::uint64_t since) const override;
  LogIndex readable_from() const override;
  Storage* storage() const override { return options_.storage; }

 private:
  friend class LogEntryWriter;

  // Takes one of the three locks and releases it at its end.
  class Hold {
   public:
    Hold(ChangeLogImpl* log, bool* flag) : log_(log), flag_(flag) { log_->Take(flag_); }
    ~Hold() { log_->Release(flag_); }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

   private:
    ChangeLogImpl* const log_;
    bool* const flag_;
  };

  struct Truncation {
    LogIndex kept;            // entries after it went
    bool everything = false;  // a reset: no entry is what it was
  };

  // What a log becomes when entries are taken away.
  struct CutState {
    std::vector<SegmentSlot> slots;
    std::shared_ptr<File> file;
    LogCatalog catalog;
    TermHistory terms;
    LogIndex last;
    Term last_term;
    Truncation truncation;
  };

  std::string PathOf(const char* name) const { return directory_ + "/" + name; }

  void Take(bool* flag) ABSL_LOCKS_EXCLUDED(mu_);
  void Release(bool* flag) ABSL_LOCKS_EXCLUDED(mu_);

  // For the holder of the write lock.
  absl::Status PrepareToAppend(LogIndex wanted) ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Roll() ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status CutTail() ABSL_LOCKS_EXCLUDED(mu_);
  // Gives the entry its index and checks all invariants (L2).
  absl::Status Admit(LogEntry* entry) ABSL_LOCKS_EXCLUDED(mu_);
  void Publish(const LogEntry& entry) ABSL_LOCKS_EXCLUDED(mu_);

  // For the holder of the cut, write and sync locks.
  absl::Status TruncateLocked(LogIndex index) ABSL_LOCKS_EXCLUDED(mu_);
  // Cuts a segment's file at `end` and makes it durable; what a failed sync may have left unwritten
  // begins at `rewrite_from`, 0 when there is nothing.
  absl::Status CutFile(File* file, const std::string& path, std::uint64_t rewrite_from,
                       std::uint64_t end);
  absl::Status ResetLocked(const SegmentHeader& header, LogCatalog catalog, TermHistory terms)
      ABSL_LOCKS_EXCLUDED(mu_);
  void Adopt(CutState state) ABSL_LOCKS_EXCLUDED(mu_);
  void AdoptSynced() ABSL_LOCKS_EXCLUDED(mu_);
  // Remembers that the directory is not what memory says.
  absl::Status Break(absl::Status status) ABSL_LOCKS_EXCLUDED(mu_);

  std::int64_t NowMs() const;
  LogIndex FirstLocked() const ABSL_SHARED_LOCKS_REQUIRED(mu_);

  const std::string directory_;
  const ChangeLogOptions options_;
  std::atomic<std::uint64_t> truncation_count_ = 0;  // size of truncations_
  std::atomic<std::uint64_t> readable_from_ = 1;     // FirstLocked()

  mutable absl::Mutex mu_;
  mutable absl::CondVar committed_;  // the last index grew
  absl::CondVar lock_free_;          // a write or cut lock became free
  absl::CondVar sync_free_;          // the sync lock became free
  bool write_held_ ABSL_GUARDED_BY(mu_) = false;
  bool sync_held_ ABSL_GUARDED_BY(mu_) = false;
  bool cut_held_ ABSL_GUARDED_BY(mu_) = false;

  std::vector<SegmentSlot> slots_ ABSL_GUARDED_BY(mu_);  // never empty; the last one is appended to
  std::shared_ptr<File> file_ ABSL_GUARDED_BY(mu_);      // of the last slot
  LogCatalog catalog_ ABSL_GUARDED_BY(mu_);
  TermHistory terms_ ABSL_GUARDED_BY(mu_);
  LogIndex last_ ABSL_GUARDED_BY(mu_);
  Term last_term_ ABSL_GUARDED_BY(mu_);
  std::vector<Truncation> truncations_ ABSL_GUARDED_BY(mu_);
  bool tail_dirty_ ABSL_GUARDED_BY(mu_) = false;  // bytes of a failed append may be behind the end
  absl::Status broken_ ABSL_GUARDED_BY(mu_);      // not OK: only reading goes on

  LogIndex synced_ ABSL_GUARDED_BY(mu_);
  std::uint64_t synced_offset_ ABSL_GUARDED_BY(mu_);  // in the last slot
  bool sync_failed_ ABSL_GUARDED_BY(mu_) = false;     // since the last one that went well
  const std::unique_ptr<SyncWatermark> watermark_;    // for the holder of the sync lock

  // For the holder of the write lock: memory that one writer leaves to the next.
  std::vector<std::uint8_t> write_buffer_;
};

}  // namespace echofs
