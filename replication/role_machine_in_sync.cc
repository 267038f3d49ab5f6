// The in-sync set of a primary (design section 8, D3), and what is acknowledged.
#include <algorithm>
#include <string>
#include <vector>

#include "replication/role_machine.h"
#include "replication/role_machine_internal.h"

namespace echofs {

using namespace role;

namespace {

bool SameMembers(std::vector<std::string> a, std::vector<std::string> b) {
  std::sort(a.begin(), a.end());
  std::sort(b.begin(), b.end());
  return a == b;
}

}  // namespace

void RoleMachine::ProceedInSync(absl::Time now) {
  if (change_ || now < next_change_) return;
  const std::vector<FollowerProgress> followers = environment_->followers();
  if (!proposed_) {
    proposed_ = WantedInSync(now, followers);
    proposal_sent_ = false;
    proposed_at_ = now;
    if (SameMembers(*proposed_, in_sync_)) {
      proposed_.reset();
      return;
    }
  }
  // From now on commits wait for the new members too; the record may name them when they have what was acknowledged
  // before, by this node or by earlier primaries.
  if (!proposal_sent_) {
    const LogIndex needed = std::max(acknowledged_, inherited_);
    for (const std::string& member : *proposed_) {
      if (member == options_.node_id || Contains(in_sync_, member)) continue;
      const FollowerProgress* follower = Find(followers, member);
      if (follower != nullptr && follower->acked >= needed) continue;
      if (now >= proposed_at_ + options_.ack_timeout / 2) {
        proposed_.reset();
        next_change_ = now + options_.ack_timeout;
      }
      return;
    }
  }
  proposal_sent_ = true;
  LeaseCall call;
  call.kind = LeaseCall::Kind::kSetInSync;
  call.term = term_;
  call.revision = lease_.record.revision;
  call.in_sync = *proposed_;
  change_ = {Call(std::move(call)), now};
}

// Who is near joins; who is silent for the timeout leaves, but never below min-sync-replicas: then commits wait (D3).
std::vector<std::string> RoleMachine::WantedInSync(
    absl::Time now, const std::vector<FollowerProgress>& followers) const {
  std::vector<std::string> wanted = in_sync_;
  if (!Contains(wanted, options_.node_id)) wanted.push_back(options_.node_id);
  for (const FollowerProgress& follower : followers) {
    const bool near = follower.connected && follower.lag < options_.ack_timeout / 2;
    if (near && !Contains(wanted, follower.node_id)) wanted.push_back(follower.node_id);
  }
  const auto silent = [&](const std::string& id) {
    if (id == options_.node_id) return false;
    const FollowerProgress* follower = Find(followers, id);
    // Who has not come yet may need a moment after the change of primaries.
    const absl::Duration lag = follower != nullptr ? follower->lag : now - led_since_;
    return lag >= options_.ack_timeout;
  };
  for (auto member = wanted.begin(); member != wanted.end();) {
    const bool enough = static_cast<int>(wanted.size()) - 1 > options_.min_sync_replicas;
    member = enough && silent(*member) ? wanted.erase(member) : member + 1;
  }
  std::sort(wanted.begin(), wanted.end());
  return wanted;
}

// 4. in the header.
void RoleMachine::UpdateAcknowledged() {
  const std::vector<FollowerProgress> followers = environment_->followers();
  LogIndex all = environment_->synced_index();
  const auto require = [&](const std::vector<std::string>& members) {
    int others = 0;
    for (const std::string& member : members) {
      if (member == options_.node_id) continue;
      ++others;
      const FollowerProgress* follower = Find(followers, member);
      all = std::min(all, follower != nullptr ? follower->acked : LogIndex{});
    }
    return others;
  };
  const int others = require(in_sync_);
  if (proposed_) require(*proposed_);
  if (others >= options_.min_sync_replicas) acknowledged_ = std::max(acknowledged_, all);
}

}  // namespace echofs
