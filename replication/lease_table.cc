#include "replication/lease_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "replication/limits.h"
#include "replication/status_macros.h"

namespace echofs {

absl::Status CheckLeaseNode(const std::string& node_id, const std::string& address) {
  if (node_id.empty()) return absl::InvalidArgumentError("a node without a name: set node.id");
  if (node_id.size() <= kIdentitySizeMax && address.size() <= kIdentitySizeMax) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      fmt::format("node.id and grpc.advertise may have at most {} bytes", kIdentitySizeMax));
}

absl::Status CheckLeaseTtl(absl::Duration ttl) {
  if (ttl > absl::ZeroDuration() && ttl <= kLeaseTtlMax) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("a lease cannot last {}: set lease.ttl to some seconds, at most to {}",
                  absl::FormatDuration(ttl), absl::FormatDuration(kLeaseTtlMax)));
}

absl::Status CheckInSync(const std::vector<std::string>& in_sync) {
  if (in_sync.size() > kInSyncNodesMax) {
    return absl::InvalidArgumentError(
        fmt::format("{} nodes in sync; there may be at most {}", in_sync.size(), kInSyncNodesMax));
  }
  for (const std::string& node : in_sync) ECHOFS_RETURN_IF_ERROR(CheckLeaseNode(node, ""));
  return absl::OkStatus();
}

absl::Status CheckAnnouncement(const NodeAnnouncement& node) {
  ECHOFS_RETURN_IF_ERROR(CheckLeaseNode(node.node_id, node.address));
  if (node.position.term.value <= kTermMax) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("node {} says that its log ends in term {}, which no cluster reaches",
                  node.node_id, node.position.term.value));
}

Term NextTerm(const LeaseState& state) {
  std::uint64_t last = state.record.term.value;
  for (const NodeAnnouncement& node : state.nodes) {
    last = std::max(last, node.position.term.value);
  }
  return NextLeaseTerm({last});
}

std::vector<std::string> SortedInSync(std::vector<std::string> in_sync) {
  std::sort(in_sync.begin(), in_sync.end());
  in_sync.erase(std::unique(in_sync.begin(), in_sync.end()), in_sync.end());
  return in_sync;
}

absl::Status CheckLeaseCluster(const std::string& key, const std::string& bound,
                               const std::string& own) {
  if (own.size() > kIdentitySizeMax) {
    return absl::InvalidArgumentError(
        fmt::format("a cluster's id may have at most {} bytes", kIdentitySizeMax));
  }
  if (bound.empty() || own.empty() || bound == own) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("lease.key {} is that of cluster {}, but the node belongs to cluster {}: give it "
                  "the lease.key "
                  "of its own cluster. If it is to join the other one: stop it, move its data "
                  "directory away and "
                  "start it again, it then copies every database",
                  key, bound, own));
}

std::string DescribeLease(const LeaseRecord& record, bool held) {
  if (record.term.value == 0) return "no node was primary yet";
  return fmt::format("node {} has term {} and {}", record.primary_id, record.term.value,
                     held ? "holds the lease" : "does not hold the lease any more");
}

void LeaseTable::Restore(const LeaseTenure& tenure, absl::Duration now) {
  tenure_ = tenure;
  expiry_ = now + tenure.ttl;
  ++version_;
}

absl::Status LeaseTable::CheckCluster(const std::string& key, const std::string& cluster_id) const {
  return CheckLeaseCluster(key, tenure_.cluster_id, cluster_id);
}

void LeaseTable::Bind(const std::string& cluster_id) {
  if (cluster_id.empty() || !tenure_.cluster_id.empty()) return;
  tenure_.cluster_id = cluster_id;
  ++version_;
}

LeaseState LeaseTable::Read(absl::Duration now) {
  Expire(now);
  LeaseState state;
  state.record = tenure_.record;
  state.held = tenure_.held;
  state.version = version_;
  state.cluster_id = tenure_.cluster_id;
  state.nodes.reserve(nodes_.size());
  for (const auto& [id, announced] : nodes_) state.nodes.push_back(announced.node);
  return state;
}

void LeaseTable::Expire(absl::Duration now) {
  bool changed = false;
  if (tenure_.held && expiry_ <= now) {
    tenure_.held = false;
    changed = true;
  }
  changed |=
      std::erase_if(nodes_, [now](const auto& node) { return node.second.expiry <= now; }) > 0;
  if (changed) ++version_;
}

absl::Duration LeaseTable::NextExpiry() const {
  absl::Duration next = tenure_.held ? expiry_ : absl::InfiniteDuration();
  for (const auto& [id, announced] : nodes_) next = std::min(next, announced.expiry);
  return next;
}

bool LeaseTable::IsHolder(Term term, const std::string& node_id) const {
  return tenure_.held && tenure_.record.term == term && tenure_.record.primary_id == node_id;
}

absl::Status LeaseTable::CheckHolder(Term term, const std::string& node_id) const {
  if (IsHolder(term, node_id)) return absl::OkStatus();
  return absl::FailedPreconditionError(
      fmt::format("node {} does not hold the lease with term {}: {}", node_id, term.value,
                  DescribeLease(tenure_.record, tenure_.held)));
}

void LeaseTable::GiveTerm(Term term, const std::string& node_id, const std::string& address,
                          absl::Duration ttl, absl::Duration now) {
  LeaseRecord& record = tenure_.record;
  record.term = term;
  record.primary_id = node_id;
  record.primary_address = address;
  ++record.revision;
  tenure_.held = true;
  tenure_.ttl = ttl;
  expiry_ = now + ttl;
  ++version_;
}

absl::StatusOr<LeaseRecord> LeaseTable::Acquire(const std::string& node_id,
                                                const std::string& address, std::uint64_t revision,
                                                const std::vector<std::string>& in_sync,
                                                absl::Duration ttl, absl::Duration now) {
  ECHOFS_RETURN_IF_ERROR(CheckLeaseNode(node_id, address));
  ECHOFS_RETURN_IF_ERROR(CheckInSync(in_sync));
  ECHOFS_RETURN_IF_ERROR(CheckLeaseTtl(ttl));
  Expire(now);
  const LeaseRecord& record = tenure_.record;
  const bool own = record.primary_id == node_id && record.primary_address == address;
  if (tenure_.held && !own) {
    return absl::FailedPreconditionError(
        fmt::format("node {} cannot become primary: {}", node_id, DescribeLease(record, true)));
  }
  if (record.revision != revision) {
    return absl::FailedPreconditionError(
        fmt::format("node {} saw revision {} of the lease, which is at {} by now: {}", node_id,
                    revision, record.revision, DescribeLease(record, tenure_.held)));
  }
  tenure_.record.in_sync = SortedInSync(in_sync);
  GiveTerm(NextTerm(Read(now)), node_id, address, ttl, now);
  return record;
}

absl::StatusOr<LeaseRecord> LeaseTable::Renew(Term term, const std::string& node_id,
                                              absl::Duration ttl, absl::Duration now) {
  ECHOFS_RETURN_IF_ERROR(CheckLeaseTtl(ttl));
  Expire(now);
  ECHOFS_RETURN_IF_ERROR(CheckHolder(term, node_id));
  tenure_.ttl = ttl;
  expiry_ = now + ttl;
  return tenure_.record;
}

absl::StatusOr<LeaseRecord> LeaseTable::SetInSync(Term term, const std::string& node_id,
                                                  std::uint64_t revision,
                                                  const std::vector<std::string>& in_sync,
                                                  absl::Duration now) {
  ECHOFS_RETURN_IF_ERROR(CheckInSync(in_sync));
  Expire(now);
  ECHOFS_RETURN_IF_ERROR(CheckHolder(term, node_id));
  std::vector<std::string> sorted = SortedInSync(in_sync);
  LeaseRecord& record = tenure_.record;
  if (record.in_sync == sorted) return record;
  if (record.revision != revision) {
    return absl::FailedPreconditionError(
        fmt::format("node {} saw revision {} of the lease, which is at {} by now", node_id,
                    revision, record.revision));
  }
  record.in_sync = std::move(sorted);
  ++record.revision;
  ++version_;
  return record;
}

absl::StatusOr<LeaseRecord> LeaseTable::Transfer(Term term, const std::string& node_id,
                                                 const std::string& target_id,
                                                 const std::string& target_address,
                                                 absl::Duration ttl, absl::Duration now) {
  ECHOFS_RETURN_IF_ERROR(CheckLeaseNode(target_id, target_address));
  ECHOFS_RETURN_IF_ERROR(CheckLeaseTtl(ttl));
  Expire(now);
  ECHOFS_RETURN_IF_ERROR(CheckHolder(term, node_id));
  GiveTerm(NextLeaseTerm(term), target_id, target_address, ttl, now);
  return tenure_.record;
}

absl::Status LeaseTable::Release(Term term, const std::string& node_id, absl::Duration now) {
  Expire(now);
  if (!IsHolder(term, node_id)) return absl::OkStatus();
  tenure_.held = false;
  ++version_;
  return absl::OkStatus();
}

absl::Status LeaseTable::Announce(const NodeAnnouncement& node, absl::Duration ttl,
                                  absl::Duration now) {
  ECHOFS_RETURN_IF_ERROR(CheckAnnouncement(node));
  ECHOFS_RETURN_IF_ERROR(CheckLeaseTtl(ttl));
  Expire(now);
  const auto found = nodes_.find(node.node_id);
  if (found == nodes_.end()) {
    if (nodes_.size() >= kLeaseNodesMax) {
      return absl::InvalidArgumentError(fmt::format(
          "{} nodes are announced already, and a cluster may not have more: give this one another "
          "lease.key if it belongs to another cluster",
          nodes_.size()));
    }
    nodes_.emplace(node.node_id, Announced{node, now + ttl});
    ++version_;
    return absl::OkStatus();
  }
  if (found->second.node != node) {
    found->second.node = node;
    ++version_;
  }
  found->second.expiry = now + ttl;
  return absl::OkStatus();
}

absl::Status LeaseTable::Withdraw(const std::string& node_id, absl::Duration now) {
  Expire(now);
  if (nodes_.erase(node_id) > 0) ++version_;
  return absl::OkStatus();
}

}  // namespace echofs
