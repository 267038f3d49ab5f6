// A change set: what one committed transaction did to one database.
#pragma once

#include <cstdint>

#include "replication/bytes.h"
#include "replication/ids.h"

namespace echofs {

// Place in a WAL up to which a change set came; all zero for one that did not come from a WAL.
struct WalPosition {
  std::uint32_t salt1 = 0;
  std::uint32_t salt2 = 0;
  std::uint64_t begin_offset = 0;  // bytes from the start of the WAL: first byte of the first frame
  std::uint64_t end_offset = 0;    // first byte after the last frame

  friend bool operator==(const WalPosition&, const WalPosition&) = default;
};

// The header fields of a change set; its pages travel beside it. See ltx-v3 in docs/formats.md.
struct ChangeSetHeader {
  std::uint32_t page_size = 0;   // bytes
  std::uint32_t page_count = 0;  // pages in the database afterwards
  Txid txid;
  // First TXID that the file covers; equals txid but for files merged by other tools.
  Txid min_txid;
  std::int64_t timestamp_ms = 0;  // since 1970
  WalPosition wal;
  std::uint64_t node_id = 0;
  Term term;
  std::uint64_t digest_after = 0;
};

// The pages of a change set in ascending order of page number, without the lock page. Pages may be
// read more than once. One thread at a time.
class PageSource {
 public:
  virtual ~PageSource() = default;
  virtual std::size_t size() const = 0;
  // `index` < size().
  virtual PageNumber number(std::size_t index) const = 0;
  // Fills `out`, whose size is the page size.
  virtual absl::Status Read(std::size_t index, MutableByteView out) = 0;
};

}  // namespace echofs
