#include "replication/role_machine.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "replication/role_machine_internal.h"

namespace echofs {

using namespace role;

namespace {

constexpr absl::Duration kTickMax = absl::Seconds(1);

}  // namespace

const char* RoleStateName(RoleState state) {
  switch (state) {
    case RoleState::kFollowing:
      return "following";
    case RoleState::kStanding:
      return "standing";
    case RoleState::kAcquiring:
      return "acquiring";
    case RoleState::kTakingOver:
      return "taking over";
    case RoleState::kLeading:
      return "leading";
    case RoleState::kCatchingUp:
      return "handing off: target catches up";
    case RoleState::kStoppingWriters:
      return "stopping writers";
    case RoleState::kDraining:
      return "handing off: last entries";
    case RoleState::kTransferring:
      return "transferring the lease";
    case RoleState::kReleasing:
      return "releasing the lease";
    case RoleState::kSteppingDown:
      return "stepping down";
    case RoleState::kStopped:
      return "stopped";
  }
  return "";
}

RoleMachine::RoleMachine(RoleOptions options, RoleEnvironment* environment)
    : options_(std::move(options)), environment_(environment) {
  highest_term_ = environment_->position().term;
}

std::vector<RoleAction> RoleMachine::TakeActions() { return std::exchange(actions_, {}); }

bool RoleMachine::leading() const {
  switch (state_) {
    case RoleState::kLeading:
    case RoleState::kCatchingUp:
    case RoleState::kStoppingWriters:
    case RoleState::kDraining:
    case RoleState::kTransferring:
    case RoleState::kReleasing:
      return true;
    default:
      return false;
  }
}

std::uint64_t RoleMachine::Call(LeaseCall call) {
  call.id = ++last_call_;
  actions_.emplace_back(std::move(call));
  return last_call_;
}

absl::Time RoleMachine::NextTick(absl::Time now) const {
  absl::Time next = now + kTickMax;
  const auto consider = [&](absl::Time time) {
    if (time > now) next = std::min(next, time);
  };
  consider(next_announce_);
  consider(next_renew_);
  consider(next_change_);
  consider(valid_until_);
  consider(handoff_deadline_);
  consider(barred_until_);
  if (state_ == RoleState::kStanding) {
    consider(vacant_since_ + Settle(options_.ttl));
    consider(vacant_since_ + options_.ttl);
    consider(vacant_since_ + 2 * options_.ttl);
  }
  return next;
}

void RoleMachine::Tick(absl::Time now) { Proceed(now); }

// ---- Inputs ----

void RoleMachine::OnLeaseState(absl::Time now, const LeaseState& state) {
  // A call's reply may have brought a newer record than a state that was read before it.
  const auto age = [](const LeaseRecord& record) {
    return std::pair(record.term, record.revision);
  };
  if (lease_known_ && age(state.record) < age(lease_.record)) return;
  lease_ = state;
  lease_known_ = true;
  highest_term_ = std::max(highest_term_, state.record.term);
  if (term_ == state.record.term && state.record.primary_id == options_.node_id && !proposed_) {
    in_sync_ = state.record.in_sync;
  }
  Proceed(now);
}

void RoleMachine::OnStoppedFollowing(absl::Time now) {
  if (stops_pending_ > 0) --stops_pending_;
  Proceed(now);
}

void RoleMachine::OnLeaseReply(absl::Time now, std::uint64_t id,
                               const absl::StatusOr<LeaseRecord>& reply) {
  if (reply.ok()) highest_term_ = std::max(highest_term_, reply->term);
  if (acquire_.id == id) {
    OnAcquireReply(now, std::exchange(acquire_, {}).sent, reply);
  } else if (renew_.id == id) {
    OnRenewReply(now, std::exchange(renew_, {}).sent, reply);
  } else if (change_.id == id) {
    change_ = {};
    if (state_ == RoleState::kTransferring) {
      OnTransferReply(now, reply);
    } else if (state_ == RoleState::kReleasing) {
      // Unknown or not: the lease ends by itself at the latest.
      LoseLease(now, "this node ends");
    } else {
      OnSetInSyncReply(now, reply);
    }
  } else if (announce_.id == id) {
    announce_ = {};
    if (reply.ok()) {
      announced_term_ = announced_->ended_term;
    } else {
      next_announce_ = now + RetryDelay(options_.ttl);
    }
  }
  Proceed(now);
}

void RoleMachine::OnAcquireReply(absl::Time now, absl::Time sent,
                                 const absl::StatusOr<LeaseRecord>& reply) {
  if (state_ != RoleState::kAcquiring) return;
  if (reply.ok()) {
    BeginTenure(now, sent, *reply);
    return;
  }
  // Another was quicker, or nobody knows: the next state of the lease tells.
  state_ = RoleState::kStanding;
  next_change_ = now + RetryDelay(options_.ttl);
}

absl::Time RoleMachine::ValidityOf(absl::Time sent) const {
  return sent + options_.ttl - options_.ttl / kMarginDivisor;
}

absl::Time RoleMachine::proven_at() const {
  return valid_until_ - (options_.ttl - options_.ttl / kMarginDivisor);
}

// The machine has proof of the lease, from a call that was sent at `sent`.
void RoleMachine::BeginTenure(absl::Time now, absl::Time sent, const LeaseRecord& record) {
  lease_.record = record;
  lease_.held = true;
  term_ = record.term;
  in_sync_ = record.in_sync;
  proposed_.reset();
  acknowledged_ = {};
  inherited_ = environment_->position().index;
  promoted_until_ = absl::InfinitePast();
  promote_force_ = false;
  valid_until_ = ValidityOf(sent);
  next_renew_ = sent + options_.ttl / kRenewalsPerTtl;
  next_change_ = now;
  state_ = RoleState::kTakingOver;
  actions_.emplace_back(TakeOver{term_});
}

void RoleMachine::OnRenewReply(absl::Time now, absl::Time sent,
                               const absl::StatusOr<LeaseRecord>& reply) {
  if (!renewal_wanted()) return;
  if (reply.ok() && reply->term == term_) {
    valid_until_ = std::max(valid_until_, ValidityOf(sent));
    next_renew_ = sent + options_.ttl / kRenewalsPerTtl;
  } else if (absl::IsFailedPrecondition(reply.status()) && state_ != RoleState::kTransferring) {
    LoseLease(now, std::string(reply.status().message()));
  } else {
    next_renew_ = now + RetryDelay(options_.ttl);
  }
}

void RoleMachine::OnSetInSyncReply(absl::Time now, const absl::StatusOr<LeaseRecord>& reply) {
  if (!leading() || !proposed_) return;
  if (reply.ok() && reply->term == term_) {
    in_sync_ = reply->in_sync;
    lease_.record = *reply;
    proposed_.reset();
    next_change_ = now;
  } else if (absl::IsFailedPrecondition(reply.status())) {
    LoseLease(now, std::string(reply.status().message()));
  } else {
    next_change_ = now + RetryDelay(options_.ttl);  // the same proposal again
  }
}

void RoleMachine::OnTransferReply(absl::Time now, const absl::StatusOr<LeaseRecord>& reply) {
  if (reply.ok()) {
    lease_.record = *reply;
    lease_.held = true;
    EndHandoff(absl::OkStatus());
    LoseLease(now, "handed off");
  } else if (absl::IsFailedPrecondition(reply.status())) {
    // Either an attempt before this one took effect, or the lease was lost.
    EndHandoff(absl::OkStatus());
    LoseLease(now, std::string(reply.status().message()));
  } else if (absl::IsUnavailable(reply.status()) || absl::IsDeadlineExceeded(reply.status())) {
    next_change_ = now + RetryDelay(options_.ttl) / 4;
  } else {
    AbandonHandoff(now, reply.status());  // refused for good: nothing was changed
  }
}

void RoleMachine::OnTookOver(absl::Time now, const absl::Status& status) {
  if (state_ == RoleState::kTakingOver && status.ok() && now < valid_until_) {
    state_ = RoleState::kLeading;
    led_since_ = now;
  } else if (state_ == RoleState::kTakingOver) {
    if (!status.ok()) {  // others shall have the chance
      barred_until_ = now + options_.ttl;
      LeaseCall release;
      release.kind = LeaseCall::Kind::kRelease;
      release.term = term_;
      Call(std::move(release));
    }
    LoseLease(now, status.ok() ? kRanOut : std::string(status.message()));
    actions_.emplace_back(StepDown{loss_});
  } else if (state_ == RoleState::kSteppingDown) {
    // The lease was lost meanwhile; only now there is something to step down from.
    actions_.emplace_back(StepDown{loss_});
  }
  Proceed(now);
}

void RoleMachine::OnWritersStopped(absl::Time now, const absl::Status& status) {
  if (state_ != RoleState::kStoppingWriters) return;
  if (!status.ok()) {
    AbandonHandoff(now, status);
  } else if (target_.empty()) {
    BeginRelease(now);
  } else {
    state_ = RoleState::kDraining;
    handoff_deadline_ = now + kDrainMax;
  }
  Proceed(now);
}

void RoleMachine::OnSteppedDown(absl::Time now) {
  if (state_ != RoleState::kSteppingDown) return;
  term_ = {};
  followed_.reset();
  state_ = RoleState::kFollowing;
  next_announce_ = now;
  Proceed(now);
}

// ---- Requests ----

const FollowerProgress* RoleMachine::Find(const std::vector<FollowerProgress>& followers,
                                          const std::string& id) const {
  for (const FollowerProgress& follower : followers) {
    if (follower.node_id == id) return &follower;
  }
  return nullptr;
}

// A replica that can be primary: `wanted`, or the one that is furthest.
absl::StatusOr<std::string> RoleMachine::ChooseTarget(const std::string& wanted) const {
  if (wanted == options_.node_id) {
    return absl::FailedPreconditionError(fmt::format("{} is the primary already", wanted));
  }
  const std::vector<FollowerProgress> followers = environment_->followers();
  const FollowerProgress* best = nullptr;
  std::string reason = wanted.empty() ? "no replica is connected that may become primary"
                                      : fmt::format("{} is not connected to this primary", wanted);
  for (const FollowerProgress& follower : followers) {
    if (!follower.connected || (!wanted.empty() && follower.node_id != wanted)) continue;
    const auto node = std::find_if(lease_.nodes.begin(), lease_.nodes.end(),
                                   [&](const auto& n) { return n.node_id == follower.node_id; });
    if (node == lease_.nodes.end()) {
      reason = fmt::format("the lease service does not know {} at the moment: try again",
                           follower.node_id);
    } else if (!node->candidate) {
      reason = fmt::format("{} is not a candidate (lease.candidate)", follower.node_id);
    } else if (!Eligible(follower.node_id)) {
      reason = fmt::format("{} is not in sync, so commits that were acknowledged could be lost",
                           follower.node_id);
    } else if (best == nullptr || follower.acked > best->acked) {
      best = &follower;
    }
  }
  if (best == nullptr) return absl::FailedPreconditionError(reason);
  return best->node_id;
}

absl::Status RoleMachine::Handoff(absl::Time now, const std::string& target) {
  if (state_ != RoleState::kLeading) {
    return absl::FailedPreconditionError(leading() ? "a handoff is under way already"
                                                   : "this node is not the primary");
  }
  const absl::StatusOr<std::string> chosen = ChooseTarget(target);
  if (!chosen.ok()) return chosen.status();
  target_ = *chosen;
  handoff_asked_ = true;
  if (!proposal_sent_) proposed_.reset();
  handoff_deadline_ = now + kCatchUpMax;
  state_ = RoleState::kCatchingUp;
  Proceed(now);
  return absl::OkStatus();
}

absl::Status RoleMachine::Promote(absl::Time now, bool force) {
  if (leading() || state_ == RoleState::kTakingOver) {
    return absl::FailedPreconditionError("this node is the primary already");
  }
  promoted_until_ = now + options_.ttl;
  promote_force_ = force;
  const std::string reason = ineligible_reason();
  if (!reason.empty()) {
    promoted_until_ = absl::InfinitePast();
    promote_force_ = false;
    return absl::FailedPreconditionError(reason);
  }
  Proceed(now);
  return absl::OkStatus();
}

void RoleMachine::Shutdown(absl::Time now) {
  if (shutting_down_) return;
  shutting_down_ = true;
  Proceed(now);
}

}  // namespace echofs
