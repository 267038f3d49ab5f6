// What the commands verify and import need of the other nodes.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <map>
#include <set>
#include <thread>
#include <utility>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "echofs/v1/replication.pb.h"
#include "replication/copy_task.h"
#include "replication/import_file.h"
#include "replication/limits.h"
#include "replication/log_entry.h"
#include "replication/node.h"
#include "replication/replica.h"
#include "replication/status_macros.h"
#include "replication/wire.h"

namespace echofs {
namespace {

absl::Status Gone() { return absl::CancelledError("the caller has gone"); }

// Who is known of, by address.
std::map<std::string, std::string> OtherNodes(const NodeStatus& status,
                                              const std::string& own_address) {
  std::map<std::string, std::string> nodes;
  if (!status.primary_address.empty()) nodes[status.primary_address] = status.primary_id;
  for (const FollowerStatus& replica : status.replicas) nodes[replica.address] = replica.node;
  for (const ClusterNode& node : status.nodes) nodes[node.address] = node.node_id;
  nodes.erase(own_address);
  for (auto i = nodes.begin(); i != nodes.end();) {
    i = i->second == status.node_id ? nodes.erase(i) : std::next(i);
  }
  return nodes;
}

}  // namespace

absl::Status Node::CheckCluster(const std::string& cluster_id) const {
  const std::string own = status().cluster_id;
  if (cluster_id == own) return absl::OkStatus();
  if (cluster_id.size() > kIdentitySizeMax) {
    return absl::InvalidArgumentError("the request has an oversized cluster id");
  }
  return absl::FailedPreconditionError(
      fmt::format("the request comes from cluster {}, this is cluster {}", cluster_id, own));
}

std::vector<DatabasePosition> Node::LoggedDatabases(const std::string& database) const {
  std::vector<DatabasePosition> positions = log_->Positions();
  std::erase_if(positions, [&](const DatabasePosition& position) {
    return position.dropped || (!database.empty() && position.name != database);
  });
  return positions;
}

absl::Status Node::ListPositions(const v1::ListPositionsRequest& request,
                                 const std::function<bool(const v1::NodeDatabase&)>& write) const {
  ECHOFS_RETURN_IF_ERROR(CheckCluster(request.cluster_id()));
  if (!request.database().empty() && !IsValidDatabaseName(request.database())) {
    return absl::InvalidArgumentError("the request names a database with an invalid name");
  }
  std::map<std::string, DatabaseState> states;
  for (const DatabaseApplyStatus& applied : status().databases) {
    states[applied.name] = applied.state;
  }
  for (const DatabasePosition& logged : LoggedDatabases(request.database())) {
    const absl::StatusOr<DatabasePosition> applied = target_->AppliedPosition(logged.name);
    if (absl::IsNotFound(applied.status())) continue;
    ECHOFS_RETURN_IF_ERROR(applied.status());
    v1::NodeDatabase message;
    ToMessage(*applied, message.mutable_position());
    const auto state = states.find(logged.name);
    message.set_state(
        DatabaseStateName(state == states.end() ? DatabaseState::kOk : state->second));
    if (!write(message)) return Gone();
  }
  return absl::OkStatus();
}

absl::Status Node::CompareNodes(const std::string& database,
                                const std::function<bool(const NodeComparison&)>& visit) {
  for (const auto& [address, node_id] : OtherNodes(status(), options_.advertise)) {
    NodeComparison node;
    node.node = node_id;
    node.address = address;
    if (!CompareNode(node, database, visit)) return Gone();
  }
  return absl::OkStatus();
}

bool Node::CompareNode(const NodeComparison& node, const std::string& database,
                       const std::function<bool(const NodeComparison&)>& visit) {
  std::set<std::string> missing;
  for (const DatabasePosition& logged : LoggedDatabases(database)) missing.insert(logged.name);
  v1::ListPositionsRequest request;
  request.set_cluster_id(status().cluster_id);
  request.set_database(database);
  const absl::Status asked =
      connector_->Connect(node.address)
          ->ListPositions(request, [&](const v1::NodeDatabase& message) -> absl::Status {
            ECHOFS_ASSIGN_OR_RETURN(const DatabasePosition position,
                                    FromMessage(message.position()));
            NodeComparison found = node;
            found.database = position.name;
            found.txid = position.txid;
            found.digest = position.digest;
            found.state = message.state().substr(0, kIdentitySizeMax);
            missing.erase(position.name);
            const absl::StatusOr<std::uint64_t> expected = DigestInHistory(position);
            if (expected.ok()) {
              found.expected_digest = *expected;
            } else {
              found.error = std::string(expected.status().message());
            }
            return visit(found) ? absl::OkStatus() : Gone();
          });
  if (absl::IsCancelled(asked)) return false;
  NodeComparison failed = node;
  if (!asked.ok()) {
    failed.error = fmt::format("cannot be asked: {}", std::string(asked.message()));
    return visit(failed);
  }
  for (const std::string& name : missing) {
    failed.database = name;
    failed.error = "has no copy of it";
    if (!visit(failed)) return false;
  }
  return true;
}

absl::StatusOr<std::uint64_t> Node::DigestInHistory(const DatabasePosition& position) const {
  const auto is_at = [&position](const DatabasePosition& own) {
    return own.txid == position.txid && own.index == position.index;
  };
  absl::StatusOr<DatabasePosition> own = log_->Position(position.name);
  if (own.ok() && is_at(*own)) return own->digest;
  // The other one may be ahead.
  if (log_->WaitForIndex(position.index, absl::Now() + kListPositionsMax) < position.index) {
    return absl::UnavailableError(fmt::format(
        "is at entry {} of the log, which this node does not have yet", position.index.value));
  }
  own = log_->Position(position.name);
  if (own.ok() && is_at(*own)) return own->digest;
  const absl::StatusOr<std::optional<LogEntry>> entry = log_->Read(position.index)->Next();
  if (absl::IsOutOfRange(entry.status())) {
    return absl::UnavailableError(fmt::format(
        "is at entry {}, and this node's log does not reach back to it", position.index.value));
  }
  ECHOFS_RETURN_IF_ERROR(entry.status());
  if (!entry->has_value() || (*entry)->database != position.name ||
      (*entry)->txid != position.txid) {
    return absl::DataLossError(
        fmt::format("has another history: its entry {} is not this node's", position.index.value));
  }
  return (*entry)->digest_after;
}

absl::Status Node::Refetch(const std::string& database) {
  const std::shared_ptr<Replica> replica = this->replica();
  if (replica == nullptr) {
    return absl::FailedPreconditionError(
        "this node is the primary: there is no other copy that its own could be fetched from. Make "
        "another node the primary first ('echofs handoff'), then repair this one");
  }
  return replica->Refetch(database, "a repair was asked for");
}

absl::StatusOr<DatabasePosition> Node::ForwardImport(const std::string& database,
                                                     std::uint64_t size, bool replace,
                                                     ByteSource& file,
                                                     const std::function<bool()>& cancelled) {
  const NodeStatus now = status();
  if (now.role == NodeRole::kPrimary) {
    return absl::FailedPreconditionError("this node has become the primary: try again");
  }
  if (now.primary_address.empty()) {
    return absl::UnavailableError("it is not known who is primary: see 'echofs status'");
  }
  const ImportHeader header = {now.cluster_id, database, size, replace};
  const std::unique_ptr<ImportCall> call =
      connector_->Connect(now.primary_address)->ImportDatabase();
  absl::Notification done;
  std::thread watch([&] {
    while (!done.WaitForNotificationWithTimeout(kStopCheckInterval)) {
      if (cancelled() || stopping()) call->Cancel();
    }
  });
  absl::StatusOr<DatabasePosition> position = SendImport(header, file, *call);
  done.Notify();
  watch.join();
  if (position.ok()) return position;
  return absl::Status(position.status().code(),
                      fmt::format("the primary, {}, did not import it: {}", now.primary_address,
                                  std::string(position.status().message())));
}

absl::Status Node::ImportDatabase(ImportServerStream& stream,
                                  v1::ImportDatabaseResponse* response) {
  if (!options_.import) return absl::UnimplementedError("this node does not import databases");
  // Before it takes the place of another import: it may be a stranger's.
  ECHOFS_ASSIGN_OR_RETURN(const ImportHeader header, ReceiveImportHeader(stream));
  ECHOFS_RETURN_IF_ERROR(CheckCluster(header.cluster_id));
  if (importing_.exchange(true)) {
    return absl::ResourceExhaustedError("the primary imports another database at the moment");
  }
  const auto import = [&]() -> absl::StatusOr<DatabasePosition> {
    const std::string directory = options_.data_directory + "/tmp";
    ECHOFS_RETURN_IF_ERROR(storage_->MakeDirectories(directory));
    const TemporaryFile file(storage_, directory + "/import");
    spdlog::info("{} ({} bytes) comes from another node to be imported", header.database,
                 header.size);
    ECHOFS_RETURN_IF_ERROR(ReceiveImport(*storage_, file.path(), header.size, stream));
    return options_.import({header.database, file.path(), header.replace},
                           [&] { return stream.cancelled() || stopping(); });
  };
  const absl::StatusOr<DatabasePosition> position = import();
  importing_ = false;
  if (!position.ok()) {
    spdlog::warn("the import ended: {}", std::string(position.status().message()));
    return position.status();
  }
  ToMessage(*position, response->mutable_position());
  return absl::OkStatus();
}

}  // namespace echofs
