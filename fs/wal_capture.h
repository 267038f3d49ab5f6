// Finds committed transactions in what an application writes to a WAL (design C1 to C3).
//
// SQLite writes a frame as two writes, header and page, which the kernel may cut in pieces; it rewrites frames of
// the open transaction in place when its cache spilled, and then rewrites the checksums of later frames, the
// commit frame's included. So the order of arrival says nothing. What counts is the chain: from the end of the last commit, frames whose
// salts are the header's and whose cumulative checksum holds, up to one with a non-zero size after commit.
//
// Why it is right: `verified_` is the last frame of the longest chain that has been checked against the
// file. A write can lengthen the chain only by touching frame verified_ + 1, and can break it only by
// touching a frame in (captured_, verified_]; in the second case verified_ goes back to the frame before it.
// Both are looked at after each write, so a commit is found by the very write that completes its chain, and
// each write costs at most the frames that it makes verifiable: O(pages) for a transaction in all.
//
// After a write or a look at the file that failed, what the file holds behind captured_ is not known: a commit
// may be there that has not been found. Nothing else may happen to the file before CatchUp has looked again.
//
// A transaction that SQLite publishes without a chain. Once SQLite has rewritten a frame in place, it writes
// further frames without salts and checksums, and after the commit frame it gives checksums to all frames from
// the first rewritten one on. Some versions (3.40.1 is one) forget that a rollback to a savepoint, or of a
// statement, took the rewritten frame out of the WAL. Then frames before it keep headers without checksums, and
// SQLite publishes a transaction that a recovery would not find. It can be told at the commit frame, by
// following what SQLite remembers: if the first rewritten frame is behind the end of the chain, the frames
// between will never join it. Such a commit is refused (C1).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "fs/appended_frame.h"
#include "fs/sqlite_format.h"
#include "replication/bytes.h"
#include "replication/storage.h"

namespace echofs::fs {

// A page in the WAL.
struct WalFrame {
  PageNumber page = 0;
  std::uint32_t frame = 0;  // the first is 1
};

// One committed transaction: frames `frames.front().frame` to `frames.back().frame` without gaps. A page may
// occur twice; the later frame counts.
struct WalCommit {
  std::vector<WalFrame> frames;
  std::uint32_t page_size = 0;
  std::uint32_t page_count = 0;  // of the database afterwards
  std::uint32_t salt1 = 0;
  std::uint32_t salt2 = 0;
  absl::Time captured = absl::InfinitePast();  // when it was queued for the log
};

// One thread at a time.
class WalCapture {
 public:
  // Starts with nothing known. `wal` must outlive this object.
  explicit WalCapture(const File* wal) : wal_(wal) {}

  // Reads what is in the file; appends the committed transactions to `commits`.
  absl::Status Load(std::vector<WalCommit>* commits);

  // To be asked before a write: FailedPrecondition when it would change a captured frame (C3), or complete a
  // commit that SQLite leaves without checksums (C1).
  absl::Status CheckWrite(std::uint64_t offset, ByteView bytes);
  // To be asked before a write: FailedPrecondition when it would make page 1 of the database one without a
  // valid header, which no node could open (C6).
  absl::Status CheckPageOne(std::uint64_t offset, ByteView bytes);
  // True when the write starts the WAL anew, or ends it: then all captured frames must be in the log (C5).
  bool RestartsWal(std::uint64_t offset, ByteView bytes) const;
  // Of such a write: whether it is how SQLite does it, with a valid header that has other salts.
  bool IsNewStart(std::uint64_t offset, ByteView bytes) const;

  // To be told after the write is in the file; appends commits that it completed to `commits`.
  // Also after an error `commits` are captured; then CatchUp is due.
  absl::Status OnWrite(std::uint64_t offset, ByteView bytes, std::vector<WalCommit>* commits);
  // To be told when a write failed: a part of it may be in the file.
  void OnFailedWrite() { behind_ = true; }
  // To be called before anything is done to the file: looks again at what an error has hidden. As OnWrite.
  absl::Status CatchUp(std::vector<WalCommit>* commits);
  // True when no captured frame lies behind `size`: SQLite cuts off what an earlier WAL left behind the
  // frames in use (journal_size_limit).
  bool KeepsCaptured(std::uint64_t size) const;
  // To be told after the file has been cut to `size`, or made anew (0).
  void OnTruncate(std::uint64_t size);

  // Nothing while the WAL has no valid header.
  const std::optional<sqlite::WalHeader>& header() const { return header_; }
  // Last frame that belongs to a captured transaction.
  std::uint32_t captured_frames() const { return captured_; }

 private:
  absl::Status Follow(std::uint64_t offset, ByteView bytes, std::vector<WalCommit>* commits);
  absl::Status FollowAppend(ByteView bytes, std::vector<WalCommit>* commits);
  absl::Status ReadHeader();
  std::uint64_t frame_size() const { return header_->page_size + sqlite::kFrameHeaderSize; }
  std::uint32_t FrameAt(std::uint64_t offset) const;
  absl::Status CheckCommitFrame(std::uint64_t offset, ByteView bytes) const;
  absl::Status Advance(std::vector<WalCommit>* commits);
  // Extends the chain by frame verified_ + 1 if its checksum holds.
  bool Verify(ByteView frame_header, ByteView page, std::vector<WalCommit>* commits);
  void ForgetAfter(std::uint32_t frame);

  const File* const wal_;
  std::optional<sqlite::WalHeader> header_;
  std::uint32_t captured_ = 0;
  sqlite::WalChecksum captured_checksum_;
  std::uint32_t verified_ = 0;
  // Of the frames (captured_, verified_].
  std::vector<WalFrame> open_frames_;
  std::vector<sqlite::WalChecksum> open_checksums_;
  bool behind_ = false;  // see CatchUp
  // Last frame whose page has been written since the WAL was started anew.
  std::uint32_t written_ = 0;
  AppendedFrame appended_;
  // First frame that SQLite has rewritten in place in the transaction that it is writing; 0: none.
  std::uint32_t rewritten_from_ = 0;
  std::vector<std::uint8_t> buffer_;
};

}  // namespace echofs::fs
