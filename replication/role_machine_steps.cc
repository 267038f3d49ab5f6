// What is due in each state of the role machine.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "replication/role_machine.h"
#include "replication/role_machine_internal.h"

namespace echofs {

using namespace role;

void RoleMachine::Proceed(absl::Time now) {
  // The states may follow one after the other at once.
  for (RoleState before = RoleState::kStopped; before != state_;) {
    before = state_;
    switch (state_) {
      case RoleState::kFollowing:
        ProceedFollowing(now);
        break;
      case RoleState::kStanding:
        ProceedStanding(now);
        break;
      case RoleState::kAcquiring:
      case RoleState::kReleasing:
      case RoleState::kSteppingDown:
      case RoleState::kStopped:
        break;
      case RoleState::kTakingOver:
        if (now >= valid_until_) LoseLease(now, kRanOut);
        break;
      default:
        ProceedLeading(now);
        break;
    }
  }
  if (renewal_wanted()) Renew(now);
  if (state_ != RoleState::kStopped) Announce(now);
}

void RoleMachine::ProceedFollowing(absl::Time now) {
  if (shutting_down_) {
    if (followed_) actions_.emplace_back(StopFollowing{});
    followed_.reset();
    LeaseCall withdraw;
    withdraw.kind = LeaseCall::Kind::kWithdraw;
    Call(std::move(withdraw));
    actions_.emplace_back(Stopped{});
    state_ = RoleState::kStopped;
    return;
  }
  if (!lease_known_) return;
  const LeaseRecord& record = lease_.record;
  if (!lease_.held || record.primary_id == options_.node_id) {
    Stand(now);
    return;
  }
  if (record.term < highest_term_) return;  // not the newest any more
  if (!followed_ || followed_->term != record.term ||
      followed_->address != record.primary_address) {
    followed_ = Follow{record.term, record.primary_id, record.primary_address};
    actions_.emplace_back(*followed_);
    followed_term_ = record.term;
  }
}

// Nobody leads, or this node is to: first the log must stand still.
void RoleMachine::Stand(absl::Time now) {
  if (followed_ || ended_term_ < lease_.record.term) {
    followed_.reset();
    ended_term_ = lease_.record.term;
    // Also when another one is under way: a Follow may have come after that.
    actions_.emplace_back(StopFollowing{});
    ++stops_pending_;
  }
  vacant_since_ = now;
  next_change_ = now;
  state_ = RoleState::kStanding;
}

std::string RoleMachine::ineligible_reason() const {
  if (!options_.candidate) return "this node is not a candidate (lease.candidate: false)";
  // Nobody is in sync until a primary leads: before that there is nothing that an empty log could lack.
  if (environment_->position().index.value == 0 && !lease_.record.in_sync.empty()) {
    return "this node has never had the cluster's data";
  }
  if (!promote_force_ && !Eligible(options_.node_id)) {
    return "this node is not in sync: commits that were acknowledged could be lost";
  }
  return "";
}

// With min-sync-replicas, only who has every acknowledged commit.
bool RoleMachine::Eligible(const std::string& node_id) const {
  const std::vector<std::string>& in_sync = lease_.record.in_sync;
  return options_.min_sync_replicas == 0 || in_sync.empty() || Contains(in_sync, node_id);
}

bool RoleMachine::MayStand() const {
  return lease_known_ && !shutting_down_ && stops_pending_ == 0 && ineligible_reason().empty();
}

void RoleMachine::ProceedStanding(absl::Time now) {
  const LeaseRecord& record = lease_.record;
  const bool mine = record.primary_id == options_.node_id;
  if (shutting_down_ || (lease_.held && !mine)) {
    state_ = RoleState::kFollowing;
    return;
  }
  if (ended_term_ < record.term) {  // another tenure has come and gone
    Stand(now);
  }
  if (stops_pending_ > 0 || acquire_ || now < next_change_) return;
  if (now < barred_until_ || !MayStand()) return;
  // The backend gives a term above those of the announced logs, and the others wait for our last word, unless the lease
  // is ours already.
  if (!lease_.held && announced_term_ != ended_term_) return;
  if (MyTurn(now)) Acquire(now);
}

bool RoleMachine::IsRival(const NodeAnnouncement& other) const {
  return other.node_id != options_.node_id && other.candidate && Eligible(other.node_id) &&
         other.position.index.value > 0;
}

bool RoleMachine::MyTurn(absl::Time now) const {
  if (now < promoted_until_) return true;
  const LogPosition own = environment_->position();
  // A lease that was transferred to this node, or is of a former process of it, is nobody else's. But a power loss may
  // have taken what others have: then it is left to run out.
  if (lease_.held) {
    return std::none_of(
        lease_.nodes.begin(), lease_.nodes.end(),
        [&](const NodeAnnouncement& other) { return IsRival(other) && other.position > own; });
  }
  // Nodes that start together get to know of each other.
  if (own.index.value == 0 && now < vacant_since_ + Settle(options_.ttl)) {
    return false;
  }
  if (MembersMayCome() && now < vacant_since_ + options_.ttl) return false;
  for (const NodeAnnouncement& other : lease_.nodes) {
    if (!IsRival(other)) continue;
    const bool ahead =
        other.position > own || (other.position == own && other.node_id < options_.node_id);
    const bool final_word = other.ended_term >= lease_.record.term;
    const absl::Duration waited = now - vacant_since_;
    if (ahead && waited < 2 * options_.ttl) return false;
    if (!final_word && waited < Settle(options_.ttl)) return false;
  }
  return true;
}

// After a start this node cannot know whether the last primary and those in sync, who may have more than it has, are gone
// or are about to be started as well.
bool RoleMachine::MembersMayCome() const {
  const LeaseRecord& record = lease_.record;
  if (record.primary_id == options_.node_id || followed_term_ == record.term) return false;
  const auto announced = [this](const std::string& id) {
    return id.empty() || id == options_.node_id ||
           std::any_of(lease_.nodes.begin(), lease_.nodes.end(),
                       [&](const NodeAnnouncement& node) { return node.node_id == id; });
  };
  return !announced(record.primary_id) ||
         !std::all_of(record.in_sync.begin(), record.in_sync.end(), announced);
}

void RoleMachine::Acquire(absl::Time now) {
  LeaseCall call;
  call.kind = LeaseCall::Kind::kAcquire;
  call.revision = lease_.record.revision;
  // The first primary of all is in sync when it leads: it may die before it has anything.
  if (environment_->position().index.value > 0) {
    if (options_.min_sync_replicas > 0) call.in_sync = lease_.record.in_sync;
    if (!Contains(call.in_sync, options_.node_id)) call.in_sync = {options_.node_id};
  }
  state_ = RoleState::kAcquiring;
  acquire_ = {Call(std::move(call)), now};
}

bool RoleMachine::renewal_wanted() const {
  return state_ == RoleState::kTakingOver || (leading() && state_ != RoleState::kReleasing);
}

void RoleMachine::Renew(absl::Time now) {
  if (renew_ || now < next_renew_) return;
  LeaseCall call;
  call.kind = LeaseCall::Kind::kRenew;
  call.term = term_;
  renew_ = {Call(std::move(call)), now};
}

void RoleMachine::Announce(absl::Time now) {
  if (!lease_known_ || announce_) return;
  NodeAnnouncement own;
  own.node_id = options_.node_id;
  own.address = options_.address;
  own.candidate = options_.candidate && now >= barred_until_;
  own.position = environment_->position();
  own.ended_term = ended_term_;
  const bool news = !announced_ || announced_->ended_term != own.ended_term ||
                    announced_->candidate != own.candidate;
  // Positions grow all the time; only a final one is worth a call of its own.
  if (stops_pending_ > 0 || (!news && now < next_announce_)) return;
  announced_ = own;
  next_announce_ = now + options_.ttl / kRenewalsPerTtl;
  LeaseCall call;
  call.kind = LeaseCall::Kind::kAnnounce;
  call.announcement = std::move(own);
  announce_ = {Call(std::move(call)), now};
}

void RoleMachine::ProceedLeading(absl::Time now) {
  const LeaseRecord& record = lease_.record;
  if (now >= valid_until_) {
    LoseLease(now, kRanOut);
    return;
  }
  const bool other_holds = record.term > term_ || record.primary_id != options_.node_id;
  if (other_holds && state_ != RoleState::kTransferring) {
    LoseLease(now, fmt::format("{} has the lease, term {}", record.primary_id, record.term.value));
    return;
  }
  UpdateAcknowledged();
  if (state_ == RoleState::kLeading && shutting_down_) {
    const absl::StatusOr<std::string> target = ChooseTarget("");
    target_ = target.ok() ? *target : "";
    if (!proposal_sent_) proposed_.reset();
    handoff_deadline_ = now + (target.ok() ? kCatchUpMax : kStopWritersMax);
    state_ = target.ok() ? RoleState::kCatchingUp : RoleState::kStoppingWriters;
    if (!target.ok()) actions_.emplace_back(StopWriters{now + kStopWritersMax});
    return;
  }
  // A set in the record that is in doubt is settled before anything else.
  if (state_ == RoleState::kLeading || (state_ == RoleState::kCatchingUp && proposed_)) {
    ProceedInSync(now);
  } else {
    ProceedHandoff(now);
  }
}

void RoleMachine::ProceedHandoff(absl::Time now) {
  if (state_ == RoleState::kTransferring) {
    if (change_ || now < next_change_) return;
    const auto followers = environment_->followers();
    const FollowerProgress* target = Find(followers, target_);
    LeaseCall call;
    call.kind = LeaseCall::Kind::kTransfer;
    call.term = term_;
    call.target_id = target_;
    for (const NodeAnnouncement& node : lease_.nodes) {
      if (node.node_id == target_) call.target_address = node.address;
    }
    if (target != nullptr) call.target_address = target->address;
    change_ = {Call(std::move(call)), now};
    return;
  }
  if (state_ != RoleState::kCatchingUp && state_ != RoleState::kDraining) return;
  const auto followers = environment_->followers();
  const FollowerProgress* target = Find(followers, target_);
  const LogIndex last = environment_->position().index;
  if (target == nullptr || !target->connected) {
    AbandonHandoff(now, absl::UnavailableError(fmt::format("{} has gone", target_)));
  } else if (state_ == RoleState::kCatchingUp &&
             target->acked.value + kHandoffLagMax >= last.value) {
    state_ = RoleState::kStoppingWriters;
    handoff_deadline_ = absl::InfiniteFuture();
    actions_.emplace_back(StopWriters{now + kStopWritersMax});
  } else if (state_ == RoleState::kDraining && target->acked >= last) {
    state_ = RoleState::kTransferring;
    handoff_deadline_ = absl::InfiniteFuture();
    next_change_ = now;
  } else if (now >= handoff_deadline_) {
    AbandonHandoff(now, absl::DeadlineExceededError(fmt::format(
                            "{} is {} entries behind and did not catch up in time", target_,
                            last.value - std::min(last, target->acked).value)));
  }
}

void RoleMachine::EndHandoff(const absl::Status& status) {
  if (handoff_asked_) actions_.emplace_back(HandoffEnded{status});
  handoff_asked_ = false;
}

// Before the transfer was sent: this node goes on leading, or ends without a target.
void RoleMachine::AbandonHandoff(absl::Time now, const absl::Status& why) {
  const bool stopped = state_ != RoleState::kCatchingUp;
  handoff_deadline_ = absl::InfiniteFuture();
  target_.clear();
  EndHandoff(why);
  if (shutting_down_) {
    if (stopped) {
      BeginRelease(now);
    } else {
      state_ = RoleState::kStoppingWriters;
      actions_.emplace_back(StopWriters{now + kStopWritersMax});
    }
    return;
  }
  if (stopped) actions_.emplace_back(ResumeWriters{});
  state_ = RoleState::kLeading;
}

void RoleMachine::BeginRelease(absl::Time now) {
  state_ = RoleState::kReleasing;
  valid_until_ = absl::InfinitePast();
  LeaseCall call;
  call.kind = LeaseCall::Kind::kRelease;
  call.term = term_;
  change_ = {Call(std::move(call)), now};
}

// From here on nothing is committed.
void RoleMachine::LoseLease(absl::Time now, const std::string& why) {
  // While it takes over there is nothing to step down from yet: see OnTookOver.
  const bool leads = state_ != RoleState::kTakingOver;
  loss_ = why;
  valid_until_ = absl::InfinitePast();
  handoff_deadline_ = absl::InfiniteFuture();
  target_.clear();
  change_ = {};
  proposed_.reset();
  next_announce_ = now;
  EndHandoff(absl::FailedPreconditionError(fmt::format("the lease was lost: {}", why)));
  state_ = RoleState::kSteppingDown;
  if (leads) actions_.emplace_back(StepDown{loss_});
}

}  // namespace echofs
