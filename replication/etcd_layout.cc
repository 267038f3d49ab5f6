#include "replication/etcd_layout.h"

#include <fmt/format.h>
#include <google/protobuf/util/json_util.h>
#include <xxhash.h>

#include <utility>

#include "echofs/v1/lease.pb.h"
#include "etcd/rpc.pb.h"
#include "replication/lease_table.h"
#include "replication/lease_wire.h"
#include "replication/limits.h"
#include "replication/status_macros.h"

namespace echofs {
namespace {

namespace pb = etcdserverpb;

// Several announcements at once may get past the limit of them.
constexpr std::int64_t kKeysMax = 2 * static_cast<std::int64_t>(kLeaseNodesMax);

// Of all that is below lease.key; it stands in the record.
constexpr std::uint32_t kFormatVersion = 1;

std::string ToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  ECHOFS_CHECK(status.ok());  // there is nothing in these messages that JSON cannot say
  return json;
}

absl::Status FromJson(const mvccpb::KeyValue& kv, google::protobuf::Message* message) {
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;  // of a newer echofs
  if (google::protobuf::util::JsonStringToMessage(kv.value(), message, options).ok()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      fmt::format("etcd's key {} has a value that echofs did not write: use another lease.key, or "
                  "repair it with etcdctl",
                  kv.key()));
}

void CompareRevision(const std::string& key, std::int64_t revision, pb::TxnRequest* transaction) {
  pb::Compare* const compare = transaction->add_compare();
  compare->set_key(key);
  compare->set_target(pb::Compare::MOD);
  compare->set_result(pb::Compare::EQUAL);
  compare->set_mod_revision(revision);
}

void SetPut(const std::string& key, std::string value, std::int64_t lease, pb::RequestOp* op) {
  op->mutable_request_put()->set_key(key);
  op->mutable_request_put()->set_value(std::move(value));
  op->mutable_request_put()->set_lease(lease);
}

}  // namespace

std::string EtcdLayout::EndOf(std::string prefix) {
  ++prefix.back();
  return prefix;
}

void EtcdLayout::SetReadAll(pb::RangeRequest* request) const {
  request->set_key(prefix_);
  request->set_range_end(EndOf(prefix_));
  request->set_limit(kKeysMax);
}

absl::StatusOr<EtcdView> EtcdLayout::Parse(const pb::RangeResponse& response) const {
  // Without its last keys, of which the record is one, the view would be wrong.
  if (response.more()) {
    return absl::InvalidArgumentError(
        fmt::format("there are more than {} keys below {} in etcd: use a lease.key of its own for "
                    "each cluster",
                    kKeysMax, prefix_));
  }
  EtcdView view;
  view.store_revision = response.header().revision();
  std::string seen;
  for (const mvccpb::KeyValue& kv : response.kvs()) {
    seen += fmt::format("{} {}\n", kv.key(), kv.mod_revision());
    if (kv.key() == record_key()) {
      v1::LeaseRecord message;
      ECHOFS_RETURN_IF_ERROR(FromJson(kv, &message));
      if (message.format_version() > kFormatVersion) {
        return absl::InvalidArgumentError(fmt::format(
            "etcd's key {} has format version {}, which is of a newer echofs; this one knows {}: "
            "start this node with the newer echofs",
            kv.key(), message.format_version(), kFormatVersion));
      }
      view.state.record = FromMessage(message);
      view.state.record.revision = static_cast<std::uint64_t>(kv.mod_revision());
    } else if (kv.key() == holder_key()) {
      v1::EtcdHolder message;
      ECHOFS_RETURN_IF_ERROR(FromJson(kv, &message));
      view.holder = {message.node_id(), message.address(), {message.term()}, message.etcd_lease()};
      view.holder_revision = kv.mod_revision();
    } else if (kv.key() == cluster_key()) {
      view.state.cluster_id = kv.value().substr(0, kIdentitySizeMax);
    } else if (kv.key().compare(0, nodes_prefix().size(), nodes_prefix()) == 0) {
      v1::NodeAnnouncement message;
      ECHOFS_RETURN_IF_ERROR(FromJson(kv, &message));
      NodeAnnouncement node = FromMessage(message);
      if (CheckAnnouncement(node).ok()) view.state.nodes.push_back(std::move(node));
    }
  }
  const LeaseRecord& record = view.state.record;
  view.state.held = view.holder_revision != 0 && view.holder.term == record.term &&
                    view.holder.node_id == record.primary_id;
  view.state.version = XXH3_64bits(seen.data(), seen.size());
  return view;
}

void EtcdLayout::Expect(const EtcdView& view, pb::TxnRequest* transaction) const {
  CompareRevision(record_key(), static_cast<std::int64_t>(view.state.record.revision), transaction);
  ExpectHolder(view, transaction);
}

void EtcdLayout::ExpectHolder(const EtcdView& view, pb::TxnRequest* transaction) const {
  CompareRevision(holder_key(), view.holder_revision, transaction);
}

void EtcdLayout::PutRecord(const LeaseRecord& record, pb::TxnRequest* transaction) const {
  v1::LeaseRecord message;
  ToMessage(record, &message);
  message.clear_revision();
  message.set_format_version(kFormatVersion);
  SetPut(record_key(), ToJson(message), 0, transaction->add_success());
}

void EtcdLayout::PutCluster(const std::string& cluster_id, pb::TxnRequest* transaction) const {
  CompareRevision(cluster_key(), 0, transaction);
  SetPut(cluster_key(), cluster_id, 0, transaction->add_success());
}

void EtcdLayout::PutHolder(const EtcdHolder& holder, pb::TxnRequest* transaction) const {
  v1::EtcdHolder message;
  message.set_node_id(holder.node_id);
  message.set_address(holder.address);
  message.set_term(holder.term.value);
  message.set_etcd_lease(holder.etcd_lease);
  SetPut(holder_key(), ToJson(message), holder.etcd_lease, transaction->add_success());
}

void EtcdLayout::RemoveHolder(pb::TxnRequest* transaction) const {
  transaction->add_success()->mutable_request_delete_range()->set_key(holder_key());
}

void EtcdLayout::PutNode(const NodeAnnouncement& node, std::int64_t etcd_lease,
                         pb::TxnRequest* transaction) const {
  v1::NodeAnnouncement message;
  ToMessage(node, &message);
  const std::string key = node_key(node.node_id);
  std::string value = ToJson(message);
  pb::Compare* compare = transaction->add_compare();
  compare->set_key(key);
  compare->set_target(pb::Compare::LEASE);
  compare->set_lease(etcd_lease);
  compare = transaction->add_compare();
  compare->set_key(key);
  compare->set_target(pb::Compare::VALUE);
  compare->set_value(value);
  SetPut(key, std::move(value), etcd_lease, transaction->add_failure());
}

void EtcdLayout::RemoveNode(const std::string& node_id, pb::TxnRequest* transaction) const {
  transaction->add_success()->mutable_request_delete_range()->set_key(node_key(node_id));
}

}  // namespace echofs
