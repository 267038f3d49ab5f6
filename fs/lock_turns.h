// How apply and readers take turns at a rollback-mode database on a replica (design A4).
//
// While change sets are applied nobody can read, and SQLite's busy handler looks again only every
// few milliseconds. So apply keeps the lock for several change sets that follow each other, but not
// longer than kApplyTurnMax, and then leaves the database to readers for as long as it kept them
// out: whenever a reader looks, it finds the database open with a chance of a half, however fast
// change sets arrive. A reader that stays inside keeps new ones out, since PENDING is held, for
// kPendingMax at a time.
#pragma once

#include <algorithm>

#include "absl/time/time.h"

namespace echofs::fs {

inline constexpr absl::Duration kApplyTurnMax = absl::Milliseconds(5);
inline constexpr absl::Duration kPendingMax = absl::Milliseconds(250);
inline constexpr absl::Duration kReadersTurnMax = absl::Milliseconds(250);

// One thread at a time.
class LockTurns {
 public:
  // What is left of the readers' turn; zero when apply may keep readers out.
  absl::Duration ReadersTurn(absl::Time now) const {
    return std::max(readers_until_ - now, absl::ZeroDuration());
  }
  // Readers are kept out from now on, unless they were already.
  void Begin(absl::Time now) { begin_ = std::min(begin_, now); }
  // Of apply's turn, as the lock is held, or as readers are still waited for.
  bool ApplyIsOver(absl::Time now) const { return now - begin_ >= kApplyTurnMax; }
  bool PendingIsOver(absl::Time now) const { return now - begin_ >= kPendingMax; }
  // Readers are let in again.
  void End(absl::Time now) {
    const absl::Duration kept_out = std::max(now - begin_, absl::ZeroDuration());
    readers_until_ = now + std::min(kept_out, kReadersTurnMax);
    begin_ = absl::InfiniteFuture();
  }

 private:
  absl::Time begin_ = absl::InfiniteFuture();  // of apply's turn
  absl::Time readers_until_ = absl::InfinitePast();
};

}  // namespace echofs::fs
