// The roles of a node as plain code (design section 7): when it stands for primary, leads, hands off, steps down,
// and who is in sync (section 8). No thread, clock, socket or file of its own: every input brings the time, every
// output is an action that the driver (node_driver in the daemon, the simulator in tests/simulation) carries out and
// reports back.
//
//            lease free, my turn      acquired           took over
//   Following ------------------> Standing/Acquiring ---> TakingOver ---> Leading <---------------.
//      ^  ^                          |  other was quicker     | failed      |  | handoff asked     | given up:
//      |  '--------------------------'                        |             |  v                   | writers resume
//      |                                                      |             |  CatchingUp -> StoppingWriters
//      |                                                      v             v                 -> Draining -> Transferring
//      '------------------------------------------------ SteppingDown <-----'--------------------------------'
//
// Why there is one history (R1 to R4):
//
// 1. The backend gives each term once (lease.h). A node leads only a term that it acquired in this process, so no two
//    tenures share a term. To whom the lease was transferred acquires it too, in the term after: what a former process
//    of it still has under way (a Release) names an older term and is refused.
// 2. *Validity*: a call sent at t that proves the lease makes it valid until t + TTL - margin on the node's own clock. The
//    backend counts from a moment at or after t, and the margin (a tenth of the TTL) covers clocks whose rates differ
//    by less. The commit fence is closed by that moment without anybody's doing (commit_fence.h), so nothing is
//    committed here when another can have acquired.
// 3. A candidate stops following (`StopFollowing` is acknowledged) before it asks for the lease, and follows only a
//    primary of the newest term it has heard of. So what its log lacks when it acquires, it never acknowledges later to
//    a former primary.
// 4. With min-sync-replicas > 0 only members of the record's in-sync set acquire. A primary counts an entry as
//    acknowledged when *every* member has it on disk. While a change of the set is under way it waits for the members
//    of both sets, for it cannot know which of them an election would look at; a new member is proposed only once it has
//    everything that was acknowledged, and all that this node had when its tenure began. So whoever is elected has every acknowledged entry (by 3 it cannot
//    acknowledge one afterwards that it lacked).
// 5. Election prefers position (R3): a candidate waits until the others have said their final position for this
//    vacancy, then for those ahead of it, as long as they live. One that has just started and did not see the last primary go
//    waits a TTL for it and for those in sync to start as well. Nor does a former holder take its lease back at
//    once when somebody has more than its log: a power loss may have taken the end of that.
// 6. Handoff: writers are stopped before the target's position is compared, nothing is committed from then on, and the
//    transfer names our term. When its outcome is unknown it is repeated until it is known or the validity has ended;
//    writers stay stopped meanwhile, for it may still take effect.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "replication/ids.h"
#include "replication/lease.h"

namespace echofs {

// How far a replica is, for the machine of its primary.
struct FollowerProgress {
  std::string node_id;
  std::string address;
  bool connected = false;
  LogIndex acked;  // everything up to here is on its disk
  // Age of the oldest entry that it has not acknowledged in any session, but not of before this tenure; 0 when it has
  // all.
  absl::Duration lag;
};

// What the machine sees of its node. Called only from within the machine's functions.
class RoleEnvironment {
 public:
  virtual ~RoleEnvironment() = default;
  // The end of this node's log.
  virtual LogPosition position() const = 0;
  // The end of what is durable of it.
  virtual LogIndex synced_index() const = 0;
  // While it leads: the replicas that are connected, or were not long ago.
  virtual std::vector<FollowerProgress> followers() const = 0;
};

struct RoleOptions {
  std::string node_id;
  std::string address;    // grpc.advertise
  bool candidate = true;  // lease.candidate
  absl::Duration ttl = absl::Seconds(10);
  int min_sync_replicas = 0;
  absl::Duration ack_timeout = absl::Seconds(5);
};

enum class RoleState {
  kFollowing,   // replica, with or without a primary that is known
  kStanding,    // the lease is free; waits for its turn
  kAcquiring,   // asked for the lease
  kTakingOver,  // has the lease, makes databases and log ready
  kLeading,
  kCatchingUp,       // handoff: the target is still far behind
  kStoppingWriters,  // handoff, or an orderly end
  kDraining,         // the target gets the last entries
  kTransferring,
  kReleasing,     // orderly end without a target
  kSteppingDown,  // fenced; the databases become a replica's
  kStopped,
};
const char* RoleStateName(RoleState state);

// ---- Actions ----

// A call of the backend. Reply: OnLeaseReply with the same id. Announce and Withdraw are replied to with an empty record.
struct LeaseCall {
  enum class Kind { kAcquire, kRenew, kSetInSync, kTransfer, kRelease, kAnnounce, kWithdraw };
  Kind kind = Kind::kRenew;
  std::uint64_t id = 0;
  Term term;                         // kRenew, kSetInSync, kTransfer, kRelease
  std::uint64_t revision = 0;        // kAcquire, kSetInSync
  std::vector<std::string> in_sync;  // kAcquire, kSetInSync
  std::string target_id;             // kTransfer
  std::string target_address;        // kTransfer
  NodeAnnouncement announcement;     // kAnnounce
};
// Follow the primary of `term`, leaving any other. No reply.
struct Follow {
  Term term;
  std::string primary_id;
  std::string address;
};
// Follow nobody: when OnStoppedFollowing is called, the log does not grow any more.
struct StopFollowing {};
// Lead: apply what the log has, open the term in the log (durably), let replicas in, let applications write.
// Reply: OnTookOver. Comes after StopFollowing was acknowledged.
struct TakeOver {
  Term term;
};
// Reply: OnWritersStopped; OK means that nothing is committed here any more, and all that was is in the log.
struct StopWriters {
  absl::Time deadline;
};
struct ResumeWriters {};
// Stop leading (writers first, at once), become a replica that follows nobody. Reply: OnSteppedDown.
struct StepDown {
  std::string reason;
};
// The handoff that was asked for has ended.
struct HandoffEnded {
  absl::Status status;
};
// The orderly end is complete: the node holds no lease.
struct Stopped {};

using RoleAction = std::variant<LeaseCall, Follow, StopFollowing, TakeOver, StopWriters,
                                ResumeWriters, StepDown, HandoffEnded, Stopped>;

// Not thread-safe. `now` is of the lease clock (boot_time.h) and never falls. After each
// input: carry out TakeActions() in order, set the commit fence to `valid_until()`, call Tick at NextTick().
class RoleMachine {
 public:
  // Does not own the environment. A node starts as a replica that follows nobody.
  RoleMachine(RoleOptions options, RoleEnvironment* environment);

  // ---- Inputs ----
  // The newest state of the lease, from Read or WaitForChange. Older ones must not come after newer ones.
  void OnLeaseState(absl::Time now, const LeaseState& state);
  void OnLeaseReply(absl::Time now, std::uint64_t id, const absl::StatusOr<LeaseRecord>& reply);
  void OnStoppedFollowing(absl::Time now);
  void OnTookOver(absl::Time now, const absl::Status& status);
  void OnWritersStopped(absl::Time now, const absl::Status& status);
  void OnSteppedDown(absl::Time now);
  // Time has passed, or a follower has come, gone or acknowledged something.
  void Tick(absl::Time now);

  // ---- Requests ----
  // Hands off to `target`, empty: to the best replica. OK: has begun, HandoffEnded comes. FailedPrecondition says
  // why not.
  absl::Status Handoff(absl::Time now, const std::string& target);
  // Stands at the next vacancy without waiting for others, for a TTL. `force`: also when not in sync. FailedPrecondition
  // when this node leads, or can never be primary.
  absl::Status Promote(absl::Time now, bool force);
  // An orderly end: a primary hands off if it can, else releases the lease. Stopped comes; the driver bounds the time.
  void Shutdown(absl::Time now);

  // ---- Outputs ----
  std::vector<RoleAction> TakeActions();
  // Commits are allowed before this moment; InfinitePast when not at all.
  absl::Time valid_until() const { return valid_until_; }
  // When the call was sent that valid_until() counts from; while that is a moment.
  absl::Time proven_at() const;
  // When to call Tick, if nothing comes before.
  absl::Time NextTick(absl::Time now) const;
  RoleState state() const { return state_; }
  bool leading() const;  // the databases are a primary's: from TakeOver's success to StepDown
  Term term() const { return term_; }  // that this node leads, or takes over; zero otherwise
  const LeaseState& lease() const { return lease_; }
  bool lease_known() const { return lease_known_; }
  // While it leads: every entry up to here is on the disk of all nodes in sync, and of min-sync-replicas others at
  // least (D1). Never falls within a tenure.
  LogIndex acknowledged_index() const { return acknowledged_; }
  // Why this node does not stand although it is a candidate; empty when it would.
  std::string ineligible_reason() const;

 private:
  struct Pending {  // a call without its reply
    std::uint64_t id = 0;
    absl::Time sent;
    explicit operator bool() const { return id != 0; }
  };

  // Each looks at the state and does what is due.
  void Proceed(absl::Time now);
  void ProceedFollowing(absl::Time now);
  void ProceedStanding(absl::Time now);
  void ProceedLeading(absl::Time now);
  void ProceedHandoff(absl::Time now);
  void ProceedInSync(absl::Time now);
  void Announce(absl::Time now);
  void Renew(absl::Time now);
  void Stand(absl::Time now);
  bool MayStand() const;
  bool Eligible(const std::string& node_id) const;
  bool MyTurn(absl::Time now) const;
  // Another node that may be elected, and whose log has something.
  bool IsRival(const NodeAnnouncement& other) const;
  bool MembersMayCome() const;
  void Acquire(absl::Time now);
  void BeginTenure(absl::Time now, absl::Time sent, const LeaseRecord& record);
  void AbandonHandoff(absl::Time now, const absl::Status& why);
  void EndHandoff(const absl::Status& status);
  void LoseLease(absl::Time now, const std::string& why);
  void BeginRelease(absl::Time now);
  const FollowerProgress* Find(const std::vector<FollowerProgress>& followers,
                               const std::string& id) const;
  absl::StatusOr<std::string> ChooseTarget(const std::string& wanted) const;
  void UpdateAcknowledged();
  std::uint64_t Call(LeaseCall call);
  bool renewal_wanted() const;
  // How long a call that was sent then makes the lease valid (2. above).
  absl::Time ValidityOf(absl::Time sent) const;
  std::vector<std::string> WantedInSync(absl::Time now,
                                        const std::vector<FollowerProgress>& followers) const;

  void OnAcquireReply(absl::Time now, absl::Time sent, const absl::StatusOr<LeaseRecord>& reply);
  void OnRenewReply(absl::Time now, absl::Time sent, const absl::StatusOr<LeaseRecord>& reply);
  void OnSetInSyncReply(absl::Time now, const absl::StatusOr<LeaseRecord>& reply);
  void OnTransferReply(absl::Time now, const absl::StatusOr<LeaseRecord>& reply);

  const RoleOptions options_;
  RoleEnvironment* const environment_;
  std::vector<RoleAction> actions_;
  std::uint64_t last_call_ = 0;

  RoleState state_ = RoleState::kFollowing;
  int stops_pending_ = 0;  // StopFollowing without its reply
  bool lease_known_ = false;
  bool shutting_down_ = false;
  bool promote_force_ = false;  // while it stands
  bool proposal_sent_ = false;  // see proposed_
  bool handoff_asked_ = false;  // by command; its end is to be told
  LeaseState lease_;

  // Following.
  std::optional<Follow> followed_;  // what Follow said last
  Term highest_term_;               // ever heard of
  Term followed_term_;              // of the primary that was followed last
  Term ended_term_;                 // see NodeAnnouncement

  // Standing.
  absl::Time vacant_since_ = absl::InfinitePast();  // of the term ended_term_
  absl::Time barred_until_ = absl::InfinitePast();  // a take-over failed
  absl::Time promoted_until_ = absl::InfinitePast();

  // Holding the lease.
  Term term_;
  absl::Time valid_until_ = absl::InfinitePast();
  std::vector<std::string> in_sync_;  // as the record has it
  // The set that the record shall have; commits wait for its members too. Once it was sent, until the reply is definite.
  std::optional<std::vector<std::string>> proposed_;
  absl::Time proposed_at_;
  LogIndex acknowledged_;
  // The end of the log at the beginning: earlier primaries may have acknowledged all of it.
  LogIndex inherited_;
  absl::Time led_since_;
  std::string loss_;  // why the lease was lost

  // Handoff.
  std::string target_;
  absl::Time handoff_deadline_ = absl::InfiniteFuture();

  // Calls and timers.
  Pending acquire_, renew_, change_, announce_;
  absl::Time next_renew_ = absl::InfinitePast();
  absl::Time next_change_ = absl::InfinitePast();
  absl::Time next_announce_ = absl::InfinitePast();
  std::optional<NodeAnnouncement> announced_;  // last, with or without a reply
  std::optional<Term> announced_term_;         // ended_term of the last one that the backend has
};

}  // namespace echofs
