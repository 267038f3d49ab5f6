// Who is the primary, as the lease service says (design R1, R6). Three backends stand behind this interface:
// static_lease (no failover), service_lease (`echofs lease-server`), etcd_lease. What each promises:
//
// - One record for a cluster, {term, primary, in-sync set}, which outlives the lease itself: who acquires next gets
//   the odd term after record.term (ids.h), for ever; more only when an announced node's log has more. A term is given once. Nothing ever
//   makes the term fall.
// - The record's primary *holds* the lease until its time is over, counted by the backend from a moment not before
//   that in which the holder sent its last Acquire, Renew or Transfer. So a holder that stops at
//   "moment of sending + TTL - margin" stops before anybody else can acquire (R2).
// - Every change is a compare-and-swap: it names the revision or the term that it builds on, and fails with
//   FailedPrecondition, changing nothing, when that is not the present one.
// - The announcements of the nodes beside it each live for their own TTL.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "replication/ids.h"

namespace echofs {

// Where a log ends; ordered as elections prefer (R3): the term of the last entry first, then its index.
struct LogPosition {
  Term term;
  LogIndex index;

  friend bool operator==(const LogPosition&, const LogPosition&) = default;
  friend bool operator<(const LogPosition& a, const LogPosition& b) {
    return a.term != b.term ? a.term < b.term : a.index < b.index;
  }
  friend bool operator>(const LogPosition& a, const LogPosition& b) { return b < a; }
  friend bool operator<=(const LogPosition& a, const LogPosition& b) { return !(b < a); }
  friend bool operator>=(const LogPosition& a, const LogPosition& b) { return !(a < b); }
};

struct LeaseRecord {
  Term term;                         // of the last tenure; zero before the first one
  std::string primary_id;            // node id
  std::string primary_address;       // host:port of its gRPC server; may be empty for a single node
  std::vector<std::string> in_sync;  // node ids that have every acknowledged commit, in order
  std::uint64_t revision = 0;  // grows with every change of the fields above, not with renewals

  friend bool operator==(const LeaseRecord&, const LeaseRecord&) = default;
};

// What a node says of itself beside the lease.
struct NodeAnnouncement {
  std::string node_id;
  std::string address;     // host:port
  bool candidate = false;  // may become primary
  LogPosition position;    // of its log when it said this
  // The highest term whose end this node has noticed: `position` will not grow any more by what the primary of that
  // term sends. Elections wait for each other's word on this (R3).
  Term ended_term;

  friend bool operator==(const NodeAnnouncement&, const NodeAnnouncement&) = default;
};

struct LeaseState {
  LeaseRecord record;
  bool held = false;                    // the record's primary holds the lease now
  std::vector<NodeAnnouncement> nodes;  // that live, in order of node id
  std::uint64_t version = 0;            // for WaitForChange; only comparable for equality
  std::string cluster_id;               // of the cluster whose lease it is; empty while not known
};

// Thread-safe. Calls may wait for the backend up to a timeout of a few seconds, so not in the way of a commit.
// Errors of all calls:
//   Unavailable         the backend cannot be asked, or did not answer in time. Whether the call had its effect is not
//                       known.
//   FailedPrecondition  the lease is not as the call supposes; nothing was changed. The message says how it is.
//   Unimplemented       this backend cannot do that (static); the message says what to do.
//   PermissionDenied, InvalidArgument  a person has to mend the configuration. Another cluster's lease is such a case.
class Lease {
 public:
  virtual ~Lease() = default;

  // To which cluster this node belongs, as soon as it does. The first holder that has said so binds the lease to its
  // cluster, with a Renew, for ever; to nodes of another one all calls are InvalidArgument from then on. A backend without
  // that ignores it.
  virtual void SetCluster(const std::string& cluster_id) { (void)cluster_id; }

  virtual absl::StatusOr<LeaseState> Read() = 0;
  // Returns as soon as the state is another one than the state with `version` (a renewal is no change, the end of
  // the lease is), at the latest after `timeout`, then with the state as it is. For a thread of its own: does not
  // keep the other calls waiting. `Cancel` makes it return Cancelled, now and from then on.
  virtual absl::StatusOr<LeaseState> WaitForChange(std::uint64_t version,
                                                   absl::Duration timeout) = 0;
  virtual void Cancel() = 0;

  // Makes the node primary: the next term (see above), `in_sync` as given. FailedPrecondition unless record.revision is
  // `revision` and the lease is free, or is held by a former process of this very node (same id and address).
  virtual absl::StatusOr<LeaseRecord> Acquire(const std::string& node_id,
                                              const std::string& address, std::uint64_t revision,
                                              const std::vector<std::string>& in_sync,
                                              absl::Duration ttl) = 0;
  // The holder goes on for a full TTL from now.
  virtual absl::StatusOr<LeaseRecord> Renew(Term term, const std::string& node_id,
                                            absl::Duration ttl) = 0;
  // The holder replaces the in-sync set that the record has at `revision`. Not a renewal. Changes nothing and is OK when
  // the set is that one already, so that the call may be repeated; one that arrives late undoes nothing newer.
  virtual absl::StatusOr<LeaseRecord> SetInSync(Term term, const std::string& node_id,
                                                std::uint64_t revision,
                                                const std::vector<std::string>& in_sync) = 0;
  // The holder makes another node primary, with the next odd term and a full TTL (R4). The in-sync set stays.
  virtual absl::StatusOr<LeaseRecord> Transfer(Term term, const std::string& node_id,
                                               const std::string& target_id,
                                               const std::string& target_address,
                                               absl::Duration ttl) = 0;
  // The holder gives the lease back; the record stays. OK too when `node_id` does not hold it with `term` any more.
  virtual absl::Status Release(Term term, const std::string& node_id) = 0;

  // Says or renews what a node says of itself, for `ttl` from now.
  virtual absl::Status Announce(const NodeAnnouncement& node, absl::Duration ttl) = 0;
  // The node leaves; OK when it was not there.
  virtual absl::Status Withdraw(const std::string& node_id) = 0;
};

}  // namespace echofs
