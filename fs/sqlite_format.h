// SQLite's file formats as pure functions over bytes: database header, WAL, rollback journal, lock bytes.
// Sources: sqlite.org/fileformat2.html, wal.c and pager.c of SQLite 3.40. Integers are big-endian but
// for the WAL checksum, whose byte order the WAL's magic number chooses.
//
// Database header, the first 100 bytes of page 1 (those that echofs reads):
//     0  "SQLite format 3\0"     24  file change counter u32   92  version-valid-for u32
//    16  page size u16, 1=65536  28  size in pages u32
//    18  write version u8        36  number of freelist pages u32
//    19  read version u8: 2 = WAL
//
// WAL: header of 32 bytes, then frames of 24 bytes and a page each.
//     header  0 magic 0x377f0682|3   4 version 3007000   8 page size   12 checkpoint sequence
//            16 salt-1   20 salt-2   24 checksum-1   28 checksum-2 (of bytes 0..23)
//     frame   0 page number   4 size of the database in pages after commit, or 0   8 salt-1   12 salt-2
//            16 checksum-1  20 checksum-2 (cumulative: bytes 0..7 of each frame header and its page)
//
// Rollback journal: header, padded to the sector size, then records; repeated for each sync.
//     header  0 magic d9d505f920a163d7   8 number of records, or ffffffff: to the end of the file
//            12 checksum nonce  16 database size in pages before  20 sector size  24 page size
//     record  0 page number   4 page as it was   then checksum u32
//     A super-journal's name may follow at the end: lock page number u32, name, its length u32, checksum
//     u32, magic.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "replication/bytes.h"
#include "replication/digest.h"
#include "replication/ids.h"

namespace echofs::sqlite {

inline constexpr std::string_view kJournalSuffix = "-journal";
inline constexpr std::string_view kWalSuffix = "-wal";
inline constexpr std::string_view kShmSuffix = "-shm";

// ---- Database header ----

inline constexpr std::size_t kDatabaseHeaderSize = 100;
inline constexpr std::size_t kMagicSize = 16;

// True when `bytes`, the start of a file, begin with SQLite's 16-byte magic.
bool HasDatabaseMagic(ByteView bytes);

struct DatabaseHeader {
  std::uint32_t page_size = 0;
  bool wal_mode = false;  // read version 2
  std::uint32_t change_counter = 0;
  std::uint32_t page_count = 0;   // as written; see page_count_valid
  bool page_count_valid = false;  // else the size of the file counts (written by very old SQLite)
  std::uint32_t freelist_count = 0;
};

// Nothing when the first 100 bytes are not a database header.
std::optional<DatabaseHeader> ParseDatabaseHeader(ByteView bytes);

// ---- Lock bytes, offsets in the database file and in the -shm file ----

inline constexpr std::uint64_t kPendingByte = 0x40000000;
inline constexpr std::uint64_t kReservedByte = kPendingByte + 1;
inline constexpr std::uint64_t kSharedFirst = kPendingByte + 2;
inline constexpr std::uint64_t kSharedSize = 510;

inline constexpr std::uint64_t kShmLockFirst = 120;
inline constexpr std::uint64_t kShmWriteLock = kShmLockFirst + 0;
inline constexpr std::uint64_t kShmCheckpointLock = kShmLockFirst + 1;
inline constexpr std::uint64_t kShmRecoverLock = kShmLockFirst + 2;
inline constexpr int kReadMarkCount = 5;
constexpr std::uint64_t ShmReadLock(int slot) { return kShmLockFirst + 3 + slot; }
inline constexpr std::uint64_t kShmDeadManSwitch = 128;

// ---- WAL ----

inline constexpr std::size_t kWalHeaderSize = 32;
inline constexpr std::size_t kFrameHeaderSize = 24;
inline constexpr std::uint32_t kWalMagicLittleEndian = 0x377f0682;
inline constexpr std::uint32_t kWalMagicBigEndian = 0x377f0683;
inline constexpr std::uint32_t kWalVersion = 3007000;

struct WalChecksum {
  std::uint32_t s0 = 0;
  std::uint32_t s1 = 0;

  friend bool operator==(const WalChecksum&, const WalChecksum&) = default;
};

// Continues `sum` over `bytes`, whose size is a multiple of 8.
WalChecksum ContinueWalChecksum(WalChecksum sum, ByteView bytes, bool big_endian);

struct WalHeader {
  bool big_endian_checksum = false;
  std::uint32_t page_size = 0;
  std::uint32_t checkpoint_sequence = 0;
  std::uint32_t salt1 = 0;
  std::uint32_t salt2 = 0;
  WalChecksum checksum;  // of the header: where the chain of frames starts
};

// Nothing when the 32 bytes are not a WAL header with a right checksum.
std::optional<WalHeader> ParseWalHeader(ByteView bytes);
// Fills 32 bytes, computing the checksum; `header->checksum` is set.
void EncodeWalHeader(WalHeader* header, MutableByteView out);

struct FrameHeader {
  PageNumber page = 0;
  std::uint32_t commit_page_count = 0;  // not 0: a commit frame
  std::uint32_t salt1 = 0;
  std::uint32_t salt2 = 0;
  WalChecksum checksum;
};

FrameHeader ParseFrameHeader(ByteView bytes);  // 24 bytes
void EncodeFrameHeader(const FrameHeader& header, MutableByteView out);
// Checksum of a frame whose header starts with `header_bytes` (8 are used), given that of the frame before.
WalChecksum FrameChecksum(WalChecksum previous, ByteView header_bytes, ByteView page,
                          bool big_endian);

// Offset of frame `frame` (the first is 1) in the WAL.
constexpr std::uint64_t FrameOffset(std::uint64_t frame, std::uint32_t page_size) {
  return kWalHeaderSize + (frame - 1) * (std::uint64_t{page_size} + kFrameHeaderSize);
}

// ---- wal-index: what can be told from the first copy of its header (wal_index.h has it all) ----

inline constexpr std::size_t kWalIndexHeadersSize = 96;  // both copies

struct WalIndexSummary {
  bool initialized = false;
  std::uint32_t max_frame = 0;  // last frame of the last commit that connections know
  std::uint32_t salt1 = 0;      // as in the WAL's header
  std::uint32_t salt2 = 0;
};

// Not initialized when there are fewer than kWalIndexHeadersSize bytes.
WalIndexSummary ParseWalIndexSummary(ByteView bytes);

// ---- Rollback journal ----

inline constexpr std::size_t kJournalHeaderSize = 28;
inline constexpr std::uint32_t kJournalRecordsToEnd = 0xffffffff;

bool HasJournalMagic(ByteView bytes);  // the first 8 bytes

struct JournalHeader {
  std::uint32_t record_count = 0;  // or kJournalRecordsToEnd
  std::uint32_t nonce = 0;
  std::uint32_t page_count = 0;   // of the database before the transaction
  std::uint32_t sector_size = 0;  // bytes; 0 is possible in later headers
  std::uint32_t page_size = 0;
};

// Nothing when the 28 bytes are not a journal header or name impossible sizes.
std::optional<JournalHeader> ParseJournalHeader(ByteView bytes);
// Checksum of a record's page.
std::uint32_t JournalPageChecksum(std::uint32_t nonce, ByteView page);

// ---- Names ----

enum class FileRole { kMain, kJournal, kWal, kShm, kSuperJournal };

struct FileName {
  FileRole role = FileRole::kMain;
  std::string_view database;  // the name without the suffix; for kSuperJournal the main database's
};

// What a file's name says about it; "x-wal" is the WAL of "x". Whether "x" is a database is not its matter.
FileName ClassifyFileName(std::string_view name);

}  // namespace echofs::sqlite
