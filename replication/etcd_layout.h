// Where the lease is in etcd (docs/formats.md), and how its changes are written as transactions.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "replication/lease.h"

namespace etcdserverpb {
class RangeRequest;
class RangeResponse;
class TxnRequest;
}  // namespace etcdserverpb

namespace echofs {

// The value of KEY/holder.
struct EtcdHolder {
  std::string node_id;
  std::string address;
  Term term;
  std::int64_t etcd_lease = 0;  // which the holder keeps alive
};

// Everything below the lease's key, as of one moment.
struct EtcdView {
  LeaseState state;                  // version: a hash of the keys and their revisions
  EtcdHolder holder;                 // empty when there is none
  std::int64_t holder_revision = 0;  // of etcd, when the key was last written; 0: there is none
  std::int64_t store_revision = 0;   // of etcd as a whole

  bool IsHolder(Term term, const std::string& node_id) const {
    return state.held && holder.term == term && holder.node_id == node_id;
  }
};

// Thread-safe.
class EtcdLayout {
 public:
  // `key`: lease.key, without a slash at the end.
  explicit EtcdLayout(const std::string& key) : prefix_(key + "/") {}

  std::string record_key() const { return prefix_ + "record"; }
  std::string holder_key() const { return prefix_ + "holder"; }
  std::string cluster_key() const { return prefix_ + "cluster"; }
  std::string nodes_prefix() const { return prefix_ + "nodes/"; }
  std::string node_key(const std::string& node_id) const { return nodes_prefix() + node_id; }
  const std::string& prefix() const { return prefix_; }
  // The first key behind all that begin with `prefix`, which ends in a slash.
  static std::string EndOf(std::string prefix);

  void SetReadAll(etcdserverpb::RangeRequest* request) const;
  // InvalidArgument when a key has a value that echofs did not write, or that a newer one did.
  absl::StatusOr<EtcdView> Parse(const etcdserverpb::RangeResponse& response) const;

  // Makes `transaction` happen only if record and holder are as they were in `view`.
  void Expect(const EtcdView& view, etcdserverpb::TxnRequest* transaction) const;
  void ExpectHolder(const EtcdView& view, etcdserverpb::TxnRequest* transaction) const;
  void PutRecord(const LeaseRecord& record, etcdserverpb::TxnRequest* transaction) const;
  // Binds the lease to a cluster, if it is not bound.
  void PutCluster(const std::string& cluster_id, etcdserverpb::TxnRequest* transaction) const;
  void PutHolder(const EtcdHolder& holder, etcdserverpb::TxnRequest* transaction) const;
  void RemoveHolder(etcdserverpb::TxnRequest* transaction) const;
  // Puts the announcement unless it is there already, attached to `etcd_lease`.
  void PutNode(const NodeAnnouncement& node, std::int64_t etcd_lease,
               etcdserverpb::TxnRequest* transaction) const;
  void RemoveNode(const std::string& node_id, etcdserverpb::TxnRequest* transaction) const;

 private:
  const std::string prefix_;
};

}  // namespace echofs
