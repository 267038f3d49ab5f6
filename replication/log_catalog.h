// The catalog: where every database stands at one point of the log. A segment starts with it.
//
// Encoding, big-endian, one after the other in ascending order of name:
//
//     0  name size u16         24  index u64          48  WAL salt-1 u32
//     2  flags u16: 1 dropped  32  page count u32     52  WAL salt-2 u32
//     4  page size u32         36  file mode u32      56  WAL begin offset u64
//     8  TXID u64              40  uid u32            64  WAL end offset u64
//    16  digest u64            44  gid u32            72  name
#pragma once

#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "replication/change_log.h"

namespace echofs {

// A value; not thread-safe.
class LogCatalog {
 public:
  // InvalidArgument for a name that is impossible or there twice.
  static absl::StatusOr<LogCatalog> FromPositions(const std::vector<DatabasePosition>& positions);
  // DataLoss when `bytes` are not a catalog.
  static absl::StatusOr<LogCatalog> Decode(ByteView bytes);
  std::string Encode() const;

  // FailedPrecondition when the entry does not continue its database (L2): TXID = last + 1 and
  // digest before = last digest after; a database that is new or was dropped has digest 0.
  absl::Status Check(const LogEntry& entry) const;
  // Moves the entry's database on. Check has passed.
  void Apply(const LogEntry& entry);

  // Null when the database never had an entry. Valid until the next change.
  const DatabasePosition* Find(const std::string& database) const;
  // In order of name.
  std::vector<DatabasePosition> Positions() const;

 private:
  absl::flat_hash_map<std::string, DatabasePosition> databases_;
};

// FailedPrecondition when `entry` may not follow an entry at (last_term, last) in a log whose
// databases stand as in `catalog`; InvalidArgument when its fields are impossible (L2, R1). Checked
// at every append on every node, and again when a log is opened.
absl::Status CheckFollows(const LogEntry& entry, LogIndex last, Term last_term,
                          const LogCatalog& catalog);

}  // namespace echofs
