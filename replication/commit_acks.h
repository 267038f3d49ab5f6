// Where commits wait for the nodes in sync (design D1): a list of callbacks, so that a thousand commits that wait cost
// no thread. Only a primary with min-sync-replicas above 0 has one.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "replication/ids.h"
#include "replication/metrics.h"

namespace echofs {

// Thread-safe.
class CommitAcks {
 public:
  using Done = std::function<void(const absl::Status&)>;

  // A commit that is not acknowledged after `timeout` (ack-timeout) fails. Does not own `metrics`.
  explicit CommitAcks(absl::Duration timeout, Metrics* metrics = UnobservedMetrics());
  // Fails what waits.
  ~CommitAcks();

  // Calls `done` once, with OK when all entries up to `index` are acknowledged: here and now if they are, otherwise on
  // another thread; it must be quick. Unavailable after the timeout, or when this node does not lead (any more): then
  // the commit is in doubt.
  void Wait(LogIndex index, Done done) ABSL_LOCKS_EXCLUDED(mutex_);

  // ---- For the role driver ----
  // A tenure begins: nothing is acknowledged yet.
  void Open() ABSL_LOCKS_EXCLUDED(mutex_);
  // Everything up to `index` is acknowledged. Calls who waits for that, so no lock may be held.
  void Advance(LogIndex index) ABSL_LOCKS_EXCLUDED(mutex_);
  // The tenure ends: what waits fails, and what comes fails at once.
  void Close(const std::string& why) ABSL_LOCKS_EXCLUDED(mutex_);
  // Somebody waits for an entry above what is acknowledged.
  bool waiting() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Waiter {
    absl::Time since;
    Done done;
  };

  void TimeoutLoop() ABSL_LOCKS_EXCLUDED(mutex_);
  // Calls `done` of all with an error.
  void Fail(const std::vector<Done>& waiting, const absl::Status& status);
  std::vector<Done> TakeExpired(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const absl::Duration timeout_;
  Metrics* const metrics_;
  mutable absl::Mutex mutex_;
  bool open_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::string closed_why_ ABSL_GUARDED_BY(mutex_) = "this node is not the primary";
  LogIndex acknowledged_ ABSL_GUARDED_BY(mutex_);
  std::multimap<LogIndex, Waiter> waiters_ ABSL_GUARDED_BY(mutex_);
  std::thread timeouts_;
};

}  // namespace echofs
