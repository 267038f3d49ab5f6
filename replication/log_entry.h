// One entry of the log, its record on disk and on the wire (design L2, L3): the same bytes on every
// node.
//
// Record, integers big-endian:
//
//     0  magic "ECHE"          48  page size u32           88  WAL salt-1 u32
//     4  kind u8, 0 u8         52  page count after u32    92  WAL salt-2 u32
//     6  name length u16       56  file mode u32           96  WAL begin offset u64
//     8  index u64             60  uid u32                104  WAL end offset u64
//    16  term u64              64  gid u32                112  XXH3_64 of bytes 0..111 and name
//    24  TXID u64              68  0 u32                  120  name, then payload
//    32  digest before u64     72  payload size u64        ..  XXH3_64 of the payload
//    40  digest after u64      80  time, ms since 1970 i64
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "replication/bytes.h"
#include "replication/change_set.h"
#include "replication/ids.h"

namespace echofs {

inline constexpr std::size_t kRecordHeaderSize = 120;
inline constexpr std::size_t kRecordTrailerSize = 8;
inline constexpr std::size_t kDatabaseNameSizeMax = 1024;  // bytes
inline constexpr std::size_t kFileNameSizeMax =
    255;  // bytes of a component, as in Linux' file systems
inline constexpr std::uint64_t kPayloadSizeMax = 64ull << 30;  // bytes

enum class EntryKind : std::uint8_t {
  kOpenTerm = 1,   // first entry of a primary; no database, no payload
  kChangeSet = 2,  // payload: one LTX file
  kDrop = 3,       // the database was deleted; no payload; digest after is 0
};

// Owner and permission bits of a database's files.
struct FileAttributes {
  std::uint32_t mode = 0644;
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;

  friend bool operator==(const FileAttributes&, const FileAttributes&) = default;
};

struct LogEntry {
  EntryKind kind = EntryKind::kChangeSet;
  LogIndex index;
  Term term;
  std::string database;  // path below the mount; empty for kOpenTerm
  Txid txid;
  std::uint64_t digest_before = 0;
  std::uint64_t digest_after = 0;
  std::uint32_t page_size = 0;
  std::uint32_t page_count = 0;  // after
  FileAttributes attributes;
  std::uint64_t payload_size = 0;
  std::int64_t timestamp_ms = 0;
  WalPosition wal;

  // Size of the whole record in bytes.
  std::uint64_t RecordSize() const {
    return kRecordHeaderSize + database.size() + payload_size + kRecordTrailerSize;
  }
};

// True for a relative path without empty, "." or ".." components, NUL, or a reserved suffix
// (-journal, -wal, -shm, -pos) or first component (.primary, .lag), that is at most
// kDatabaseNameSizeMax bytes, each component kFileNameSizeMax: such a name can never leave the data directory or hide a file of
// another meaning.
bool IsValidDatabaseName(std::string_view name);

// InvalidArgument when the fields of an entry cannot be together in a record, whatever is before
// it.
absl::Status CheckEntryFields(const LogEntry& entry);

// Record header and name: the first kRecordHeaderSize + name size bytes of a record. The entry's
// fields have been checked.
std::string EncodeEntryHeader(const LogEntry& entry);

// The counterpart. `bytes` starts at a record and holds at least its header and name, or else
// OutOfRange is returned. DataLoss for a wrong checksum or impossible field values.
absl::StatusOr<LogEntry> DecodeEntryHeader(ByteView bytes);

// Checksum over a payload, fed in pieces.
class PayloadChecksum {
 public:
  PayloadChecksum();
  ~PayloadChecksum();
  PayloadChecksum(const PayloadChecksum&) = delete;
  PayloadChecksum& operator=(const PayloadChecksum&) = delete;
  void Add(ByteView bytes);
  std::uint64_t Value() const;
  // The same for a payload in one piece.
  static std::uint64_t Of(ByteView payload);

 private:
  void* const state_;  // XXH3_state_t, owned
};

}  // namespace echofs
