// The node's durable log (design section 5): one sequence of entries for all databases, in segment
// files.
//
// A segment `log/%016x.seg`, named by the index of its first entry, starts with a catalog: the
// position of every database before that entry. So a node knows where each database stands from the
// last segment alone, and older segments may go at any time. It also holds the terms of the history
// before it (log_match.h), so that they follow every truncation and reset by themselves.
// docs/formats.md has the layout.
//
// Torn tails: a record is written payload first, header last. At Open, what follows the last whole
// record is cut when nothing that was synced lies behind it; otherwise Open fails with DataLoss
// naming the segment and the offset. `log/synced` remembers how far a sync came.
//
// Invariants, checked at every append on every node: index = last + 1; term >= last; per database
// TXID = last + 1 and digest_before = last digest_after. A gap can never be stored silently.
//
// An append that fails, a full disk included (L4), leaves the log as it was and usable. After an
// I/O error in Reset or TruncateAfter the log refuses everything but reading until it is opened
// again.
//
// Thread-safe. Appends are serialised: Begin holds the log's write lock until Commit or destruction
// of the writer (in any thread). Readers never block appends. The directory is for one ChangeLog at
// a time; its owner guards that.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "replication/bytes.h"
#include "replication/ids.h"
#include "replication/log_entry.h"
#include "replication/log_match.h"
#include "replication/storage.h"

namespace echofs {

// Where one database stands.
struct DatabasePosition {
  std::string name;
  Txid txid;
  std::uint64_t digest = 0;
  std::uint32_t page_size = 0;
  std::uint32_t page_count = 0;
  FileAttributes attributes;
  WalPosition wal;
  LogIndex index;        // of its last entry
  bool dropped = false;  // deleted; the TXID goes on if it is made again

  friend bool operator==(const DatabasePosition&, const DatabasePosition&) = default;
};

struct ChangeLogOptions {
  Storage* storage = PosixStorage();          // not owned
  std::uint64_t segment_size = 64ull << 20;   // bytes, after which a new segment begins
  std::uint64_t retention_size = 1ull << 30;  // bytes of old segments to keep
  absl::Duration retention_age = absl::Hours(24);
  std::function<absl::Time()> now = absl::Now;  // for the age of segments
};

// Where the whole log stands at one moment.
struct LogState {
  LogIndex index;                           // of the last entry
  Term term;                                // of the last entry
  std::vector<DatabasePosition> databases;  // after it, in order of name
};

class ChangeLog;

// Writes one entry, piece by piece. One thread at a time. Must not outlive its log.
class EntryWriter : public ByteSink {
 public:
  // Appends to the payload.
  absl::Status Write(ByteView bytes) override = 0;
  // Completes the record and makes it visible to readers. The header's payload_size, and for
  // appends by the primary its index, are filled in here. Returns the index. Does not sync.
  // `digest_after`, `page_count` etc. are taken from `entry`, which may differ from what Begin was
  // given in everything but the database. FailedPrecondition when the entry does not continue the
  // log, the database, or the term; InvalidArgument when its fields cannot be; ResourceExhausted
  // when the disk is full. The write lock is free afterwards in any case.
  virtual absl::StatusOr<LogIndex> Commit(const LogEntry& entry) = 0;
  // Destruction without Commit takes back what was written.
};

// Reads records in order of index. One thread. Must not outlive its log. Never returns an entry
// that was not committed. Next fails with OutOfRange when its next entry was removed by retention,
// when an entry before it was truncated (what it returned is then not the log's history any more),
// or when the reader was made for an index beyond the end. DataLoss names segment and offset of the
// damage.
class LogReader {
 public:
  virtual ~LogReader() = default;
  // The next entry, or nothing when the end of the log has been reached (call again later).
  virtual absl::StatusOr<std::optional<LogEntry>> Next() = 0;
  // The payload of the entry that Next returned last; for one pass, and until Next is called again.
  // Its last bytes are given out only when the checksum is right.
  virtual std::unique_ptr<ByteSource> Payload() = 0;
  // The raw record of that entry: header, name, payload, checksum. Otherwise like Payload.
  virtual std::unique_ptr<ByteSource> Record() = 0;
};

class ChangeLog {
 public:
  // Opens the log in `directory`, which is made when missing. A new log is empty, its next index
  // is 1.
  static absl::StatusOr<std::unique_ptr<ChangeLog>> Open(const std::string& directory,
                                                         const ChangeLogOptions& options);
  virtual ~ChangeLog() = default;

  // Starts an entry; takes the write lock. Entry.index must be 0 (the next one is assigned) or the
  // next one (FailedPrecondition otherwise). The other checks are made at Commit.
  virtual absl::StatusOr<std::unique_ptr<EntryWriter>> Begin(const LogEntry& entry) = 0;
  // Begin, Write, Commit: a payload up to 256 KiB costs one write call.
  absl::StatusOr<LogIndex> Append(const LogEntry& entry, ByteView payload);

  // ResourceExhausted when the disk has surely no room for entries of `bytes` more. Only a hint: others
  // may take the room before it is used.
  virtual absl::Status CheckRoom(std::uint64_t bytes) const = 0;

  // Makes all entries up to `index` durable; concurrent calls share one fdatasync. OutOfRange when
  // the log does not reach `index`. After an error nothing is known to be durable that was not
  // before; the next call writes the entries in question again.
  virtual absl::Status Sync(LogIndex index) = 0;

  // Drops everything and starts anew after `base`: the next entry is base + 1, and the databases
  // stand as in `catalog`. `terms` are those of the history that it continues; what they say after
  // the base is left away, and they are not believed when they do not fit it. For a node that
  // received a first copy. Durable when it returns.
  virtual absl::Status Reset(LogIndex base, Term base_term,
                             const std::vector<DatabasePosition>& catalog,
                             const TermHistory& terms) = 0;
  absl::Status Reset(LogIndex base, Term base_term, const std::vector<DatabasePosition>& catalog) {
    return Reset(base, base_term, catalog, TermHistory());
  }
  // Removes all entries after `index`, durably; OutOfRange when that is before the first entry's
  // base or beyond the end. For a node whose tail is not the cluster's history.
  virtual absl::Status TruncateAfter(LogIndex index) = 0;
  // Removes old segments beyond the retention that hold no entry >= `needed`.
  virtual absl::Status Retain(LogIndex needed) = 0;

  // Index of the first entry that can be read; last_index + 1 when there is none.
  virtual LogIndex first_index() const = 0;
  virtual LogIndex last_index() const = 0;
  virtual LogIndex synced_index() const = 0;
  virtual Term last_term() const = 0;
  // Term of the entry at `index`, or of the base for first_index - 1. OutOfRange when it is not
  // known.
  virtual absl::StatusOr<Term> TermAt(LogIndex index) const = 0;
  // Bytes of all segments on disk.
  virtual std::uint64_t size_bytes() const = 0;

  // Position of one database after the last entry; NotFound when it never had one.
  virtual absl::StatusOr<DatabasePosition> Position(const std::string& database) const = 0;
  virtual std::vector<DatabasePosition> Positions() const = 0;
  // Last index, last term and all positions of one and the same moment.
  virtual LogState State() const = 0;
  // The terms of the history that this log ends, also of entries that retention has removed.
  virtual TermHistory Terms() const = 0;

  // A reader whose first Next returns the entry at `from`.
  virtual std::unique_ptr<LogReader> Read(LogIndex from) const = 0;
  // Waits until last_index >= index, or the deadline; returns last_index. For tails.
  virtual LogIndex WaitForIndex(LogIndex index, absl::Time deadline) const = 0;
};

}  // namespace echofs
