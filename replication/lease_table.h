// The lease service's state and its rules, as plain code: no clock, no thread, no storage. The lease server puts
// those around it; the simulation runs it as it is.
//
// Why a term is given once: every function first ends what is over at `now`, then checks, then changes everything or
// nothing; only Acquire and Transfer give a term, each at least the record's plus one, and nothing sets the record's
// term to a lower one. Why nobody acquires too early: a holder's time counts from the `now` of the call that gave or renewed it,
// which is not before the moment in which the holder sent it.
//
// Errors are those of Lease (lease.h), except that nothing here is ever Unavailable.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "replication/lease.h"

namespace echofs {

// What has to survive a restart of whoever keeps a LeaseTable, before anybody learns of it.
struct LeaseTenure {
  LeaseRecord record;
  bool held = false;       // neither released nor seen to be over
  absl::Duration ttl;      // as last asked for by the holder or for it
  std::string cluster_id;  // to which the lease is bound, empty: not yet

  friend bool operator==(const LeaseTenure&, const LeaseTenure&) = default;
};

// Not thread-safe. `now` is the time since some fixed moment, such as the boot; it must not fall from one call to the
// next.
class LeaseTable {
 public:
  // No term was ever given. Versions count from `first_version`, so that those of two processes can be told apart.
  explicit LeaseTable(std::uint64_t first_version = 1) : version_(first_version) {}

  // Goes on from what was stored. Since renewals need not be stored, a holder counts as if it had renewed `now`.
  // The announcements stay as they are.
  void Restore(const LeaseTenure& tenure, absl::Duration now);
  const LeaseTenure& tenure() const { return tenure_; }

  // InvalidArgument when the lease is bound to another cluster; see Lease::SetCluster. Empty ids fit everywhere.
  absl::Status CheckCluster(const std::string& key, const std::string& cluster_id) const;
  // Binds it unless it is bound.
  void Bind(const std::string& cluster_id);

  // As the functions of Lease.
  LeaseState Read(absl::Duration now);
  absl::StatusOr<LeaseRecord> Acquire(const std::string& node_id, const std::string& address,
                                      std::uint64_t revision,
                                      const std::vector<std::string>& in_sync, absl::Duration ttl,
                                      absl::Duration now);
  absl::StatusOr<LeaseRecord> Renew(Term term, const std::string& node_id, absl::Duration ttl,
                                    absl::Duration now);
  absl::StatusOr<LeaseRecord> SetInSync(Term term, const std::string& node_id,
                                        std::uint64_t revision,
                                        const std::vector<std::string>& in_sync,
                                        absl::Duration now);
  absl::StatusOr<LeaseRecord> Transfer(Term term, const std::string& node_id,
                                       const std::string& target_id,
                                       const std::string& target_address, absl::Duration ttl,
                                       absl::Duration now);
  absl::Status Release(Term term, const std::string& node_id, absl::Duration now);
  absl::Status Announce(const NodeAnnouncement& node, absl::Duration ttl, absl::Duration now);
  absl::Status Withdraw(const std::string& node_id, absl::Duration now);

  // Ends what is over at `now`; the functions above do it themselves.
  void Expire(absl::Duration now);
  // When Expire will next change something if nobody calls before; InfiniteDuration when nothing has an end.
  absl::Duration NextExpiry() const;
  // That of the present LeaseState: another one after each change of it.
  std::uint64_t version() const { return version_; }

 private:
  struct Announced {
    NodeAnnouncement node;
    absl::Duration expiry;
  };

  absl::Status CheckHolder(Term term, const std::string& node_id) const;
  bool IsHolder(Term term, const std::string& node_id) const;
  void GiveTerm(Term term, const std::string& node_id, const std::string& address,
                absl::Duration ttl, absl::Duration now);

  LeaseTenure tenure_;
  absl::Duration expiry_;  // of the holder's time, while tenure_.held
  std::map<std::string, Announced> nodes_;
  std::uint64_t version_;
};

// What every backend refuses before it does anything: InvalidArgument with a message for people.
absl::Status CheckLeaseNode(const std::string& node_id, const std::string& address);
absl::Status CheckLeaseTtl(absl::Duration ttl);
// `node` with its terms, which may be far from the last one there is but not at it.
absl::Status CheckAnnouncement(const NodeAnnouncement& node);
absl::Status CheckInSync(const std::vector<std::string>& in_sync);

// The odd term that Acquire gives: above the record's and above the ends of all announced logs. Those are above the record
// only when it is younger than they are: after a change from another lease.type, or when the service lost its data.
Term NextTerm(const LeaseState& state);

// The same nodes in order, each once.
std::vector<std::string> SortedInSync(std::vector<std::string> in_sync);

// InvalidArgument when both are known and differ: `bound` has the lease `key`, the caller belongs to `own`.
absl::Status CheckLeaseCluster(const std::string& key, const std::string& bound,
                               const std::string& own);

// "node a has term 4 and holds it", for messages.
std::string DescribeLease(const LeaseRecord& record, bool held);

}  // namespace echofs
