// The primary's side of replication: serves the log and first copies to its replicas, and knows how
// far each of them is.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "replication/apply_target.h"
#include "replication/change_log.h"
#include "replication/follow_session.h"
#include "replication/limited_log.h"
#include "replication/transport.h"

namespace echofs {

// How far a replica is, as the primary knows it.
struct FollowerStatus {
  std::string node;
  std::string address;
  bool connected = false;
  LogIndex acked_index;    // everything up to here is on its disk
  LogIndex applied_index;  // everything up to here is visible there
  // Age of the oldest entry that it has not acknowledged, but not of before this tenure; 0 when it has all.
  std::uint64_t lag_ms = 0;
};

// Thread-safe. Every call of the service is refused with Unavailable after Stop.
class Primary final {
 public:
  // Does not own log and target. The term of `identity` must have been opened in the log (R1). `on_change` is called
  // when a replica has come, gone or acknowledged something, without locks held; it must be quick.
  Primary(PrimaryIdentity identity, const ChangeLog* log, ApplyTarget* target,
          std::function<void()> on_change);
  // Stops.
  ~Primary();

  // See ReplicationService.
  absl::Status Follow(FollowServerStream& stream) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status FetchDatabase(const v1::FetchDatabaseRequest& request, FetchServerStream& stream)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Ends all calls and waits until they have returned.
  void Stop() ABSL_LOCKS_EXCLUDED(mutex_);

  // The replicas that are connected, and for kFollowerRemembered those that were, by node id.
  std::vector<FollowerStatus> Followers() const ABSL_LOCKS_EXCLUDED(mutex_);
  Term term() const { return identity_.term; }

 private:
  struct Follower {
    std::string address;
    LogIndex acked;         // in its newest session
    LogIndex acked_before;  // in any session: how far behind it is while a new one has just begun
    LogIndex applied;
    absl::Time last_seen;
    // Lag as it was found a moment ago: to find it costs a look into the log.
    std::uint64_t lag_ms = 0;
    absl::Time lag_at = absl::InfinitePast();
    std::uint64_t session = 0;             // number of its newest session
    FollowServerStream* stream = nullptr;  // of that session while it lasts
  };

  absl::Status Join(const v1::Hello& hello, std::uint64_t session, FollowServerStream* stream)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void Leave(const std::string& node, std::uint64_t session) ABSL_LOCKS_EXCLUDED(mutex_);
  void ForgetOldFollowers() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::uint64_t LagMs(Follower& follower) const;

  const PrimaryIdentity identity_;
  const ChangeLog* const log_;
  ApplyTarget* const target_;
  const std::function<void()> on_change_;
  LimitedLog refusals_;
  const absl::Time began_ = absl::Now();
  std::atomic<bool> stopping_ = false;

  mutable absl::Mutex mutex_;
  mutable std::map<std::string, Follower> followers_ ABSL_GUARDED_BY(mutex_);  // by node id
  std::uint64_t last_session_ ABSL_GUARDED_BY(mutex_) = 0;
  // The calls that go on, also those that have not said who they are.
  std::set<FollowServerStream*> follow_calls_ ABSL_GUARDED_BY(mutex_);
  std::set<FetchServerStream*> fetch_calls_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace echofs
