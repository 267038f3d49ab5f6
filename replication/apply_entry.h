// One entry against one local database: does it follow, and what came of applying it.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "replication/apply_target.h"
#include "replication/bytes.h"
#include "replication/ids.h"
#include "replication/log_entry.h"

namespace echofs {

// Where the files of a local database stand.
struct LocalPosition {
  bool exists = false;  // there is a local copy
  Txid txid;            // of the last entry, also when that dropped it; zero when unknown
  std::uint64_t digest = 0;
  LogIndex index;  // of the last entry; zero when unknown
};

struct EntryOutcome {
  enum class Kind {
    kApplied,
    kSkipped,  // the files have it already
    kGap,      // it does not follow what the files hold: a copy is needed
    kDamaged,  // the entry or the files are wrong, the digest says (A6): a copy is needed
    kBlocked,  // an application is in the way (A5)
    kLater,    // it is the readers' turn, for `retry_after`
    kFailed,   // the files could not be written: try again later
  };
  Kind kind = Kind::kApplied;
  int blocked_by_pid = 0;
  std::string message = "";  // for kGap, kDamaged, kFailed
  absl::Duration retry_after = absl::ZeroDuration();
};

// Applies `entry` to the database if it follows `position`. The caller moves its position on
// kApplied.
EntryOutcome ApplyEntry(ApplyTarget& target, const LocalPosition& position, const LogEntry& entry,
                        ByteSource& payload);

}  // namespace echofs
