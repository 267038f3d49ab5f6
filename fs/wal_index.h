// The wal-index: SQLite's shared memory beside a WAL (the -shm file), kept in the daemon's memory
// while this node is a replica. Source: wal.c of SQLite 3.40. All integers are in native byte order
// but the two salts, which are copied byte for byte from the WAL's header.
//
//     0  header, copy 1 (48 bytes):
//          0 version u32 = 3007000    16 last valid and committed frame u32
//          4 0 u32                    20 size of the database in pages u32
//          8 change counter u32       24 checksum of that frame, 2 x u32
//         12 initialised u8 = 1       32 salt-1, salt-2
//         13 big-endian checksums u8  40 checksum of bytes 0..39, 2 x u32
//         14 page size u16, 1=65536
//    48  header, copy 2
//    96  frames that a checkpoint has put into the database u32
//   100  read marks, 5 x u32: the newest frame that the readers of a slot use; ffffffff: not in use
//   120  lock bytes, never read or written
//   128  frames that a checkpoint has tried to put into the database u32, 0 u32
//   136  region 0: page numbers of frames 1..4062, u32 each, then 8192 hash slots u16
// 32768  region 1: page numbers of the next 4096 frames, then 8192 hash slots; and so on.
//
// A hash slot holds the place of a frame in its region, from 1 on; 0 is empty. Page p starts at
// slot p * 383 mod 8192 and goes on to the next free one.
//
// Who writes what (A2): on a replica the daemon holds WRITE, CKPT and (in the moment of a change)
// the lock of a slot, so applications write nothing but read marks. The daemon's memory is
// therefore authoritative for everything else; what the kernel writes back late changes the marks
// alone. The marks that count are those in the kernel's page; the ones here only serve READs after
// the kernel dropped its page.
//
// Why a reader never sees a wrong page: it looks only at table entries of frames up to the last
// frame of the header it holds. Append writes entries of later frames only, and entries are never
// removed that a reader with a lock on its slot could look up: a region is cleared when its first
// frame is appended, which after a restart means that no reader used the WAL (slots 1..4 were
// locked exclusively), and CleanTail removes entries that no published header ever covered.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "fs/sqlite_format.h"
#include "replication/bytes.h"
#include "replication/ids.h"

namespace echofs::fs {

struct WalIndexHeader {
  std::uint32_t change_counter = 0;
  bool big_endian_checksum = false;
  std::uint32_t page_size = 0;
  std::uint32_t max_frame = 0;
  std::uint32_t page_count = 0;
  sqlite::WalChecksum frame_checksum;
  std::uint32_t salt1 = 0;
  std::uint32_t salt2 = 0;

  friend bool operator==(const WalIndexHeader&, const WalIndexHeader&) = default;
};

// Thread-safe; its mutex is held for copying only, never across a call. All changes but MergeWrite
// come from the apply thread. "Range" is a range of bytes of the -shm file whose content changed
// and has to be stored in the kernel; it consists of whole aligned 8-byte words (A2).
class WalIndex {
 public:
  static constexpr std::size_t kRegionSize = 32768;  // bytes
  static constexpr std::size_t kHeaderSize = 48;     // bytes of one copy
  static constexpr std::size_t kTablesOffset = 136;  // bytes
  static constexpr std::size_t kBackfillOffset = 96;
  static constexpr std::size_t kReadMarksOffset = 100;
  static constexpr std::size_t kBackfillAttemptedOffset = 128;
  static constexpr std::uint32_t kFirstRegionFrames = 4062;
  static constexpr std::uint32_t kRegionFrames = 4096;
  static constexpr std::uint32_t kSlots = 8192;
  static constexpr std::uint32_t kReadMarkNotUsed = 0xffffffff;

  struct Range {
    std::uint64_t offset = 0;
    std::uint64_t size = 0;
  };

  // One region, all zero: no valid header.
  WalIndex();
  // Makes size() at least `size`, for a -shm file that is already that long.
  void Reserve(std::uint64_t size);

  // Enters the page numbers of the frames after the last one entered. They are invisible until a
  // header that covers them is published. Adds regions as needed.
  std::vector<Range> Append(std::span<const PageNumber> pages);
  // Takes entries after the published header's last frame out again (walCleanupHash).
  std::vector<Range> CleanTail();

  // Makes `header` the one that READs see, both copies, and returns the bytes of one copy. The
  // entries of all its frames must have been appended; a last frame of 0 starts the tables anew.
  std::array<std::uint8_t, kHeaderSize> Publish(const WalIndexHeader& header);
  // Makes both copies invalid, so that readers have to recover; header() stays as it was.
  Range ClearHeaders();
  WalIndexHeader header() const;

  void SetBackfill(std::uint32_t frame);
  void SetBackfillAttempted(std::uint32_t frame);
  std::uint32_t backfill() const;
  void SetReadMark(int slot, std::uint32_t frame);
  std::uint32_t ReadMark(int slot) const;

  // The newest frame of `page` that is <= max_frame, or 0. `max_frame` <= that of the header.
  std::uint32_t FindFrame(PageNumber page, std::uint32_t max_frame) const;
  // Page number of a frame whose entry was appended.
  PageNumber PageOfFrame(std::uint32_t frame) const;

  // Size of the -shm file in bytes, a multiple of kRegionSize; only grows.
  std::uint64_t size() const;
  // Copies bytes out, for a READ; returns how many there are up to the end.
  std::size_t Read(std::uint64_t offset, MutableByteView out) const;
  // A late writeback of the kernel: takes over the read marks, drops everything else.
  void MergeWrite(std::uint64_t offset, ByteView bytes);

  // Encodes one header copy; public for tests and for comparing with what the kernel holds.
  static std::array<std::uint8_t, kHeaderSize> EncodeHeader(const WalIndexHeader& header);

 private:
  struct alignas(8) Region {
    std::array<std::uint8_t, kRegionSize> bytes = {};
  };
  // Where a frame's entry is.
  struct Place {
    std::size_t region;
    std::uint32_t index;  // from 1 on, within the region
    std::size_t
        numbers_offset;  // of the region's first page number, in bytes from the region's start
  };
  static Place PlaceOf(std::uint32_t frame);
  static std::uint32_t FramesBefore(std::size_t region);

  void AppendOne(const Place& place, PageNumber page, std::vector<std::size_t>* words)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  template <typename T>
  T Load(std::size_t region, std::size_t offset) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  template <typename T>
  void Save(std::size_t region, std::size_t offset, T value) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable absl::Mutex mutex_;
  std::vector<std::unique_ptr<Region>> regions_ ABSL_GUARDED_BY(mutex_);
  WalIndexHeader header_ ABSL_GUARDED_BY(mutex_);
  std::uint32_t table_frames_ ABSL_GUARDED_BY(mutex_) = 0;  // frames that have entries
};

}  // namespace echofs::fs
