#include "cmd/metrics_text.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>
#include <string.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "cmd/version.h"
#include "replication/limits.h"

namespace echofs::cmd {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

// A file's name need not be UTF-8, a label must be.
std::string Utf8(const std::string& text) {
  using nlohmann::json;
  return json::parse(json(text).dump(-1, ' ', false, json::error_handler_t::replace));
}

// Collects families; a metric that is added belongs to the family that was begun last.
class Families {
 public:
  void Begin(MetricType type, const char* name, const char* help) {
    families_.push_back({std::string("echofs_") + name, help, type, {}});
  }
  void Add(double value, Labels labels = {}) {
    ClientMetric metric;
    for (ClientMetric::Label& label : labels) label.value = Utf8(label.value);
    metric.label = std::move(labels);
    (families_.back().type == MetricType::Counter ? metric.counter.value : metric.gauge.value) =
        value;
    families_.back().metric.push_back(std::move(metric));
  }
  void Gauge(const char* name, const char* help, double value) {
    Begin(MetricType::Gauge, name, help);
    Add(value);
  }
  void Counter(const char* name, const char* help, std::uint64_t value) {
    Begin(MetricType::Counter, name, help);
    Add(static_cast<double>(value));
  }
  void Histogram(const char* name, const char* help, const DurationHistogram& histogram) {
    Begin(MetricType::Histogram, name, help);
    ClientMetric metric;
    std::uint64_t count = 0;
    const auto counts = histogram.counts();
    for (std::size_t i = 0; i < kDurationBounds.size(); ++i) {
      count += counts[i];
      metric.histogram.bucket.push_back({count, static_cast<double>(kDurationBounds[i]) / 1e6});
    }
    metric.histogram.sample_count = count + counts.back();
    metric.histogram.sample_sum = absl::ToDoubleSeconds(histogram.sum());
    families_.back().metric.push_back(std::move(metric));
  }

  std::string Text() const {
    // A family without metrics would be two lines of comment.
    std::vector<MetricFamily> shown;
    for (const MetricFamily& family : families_) {
      if (!family.metric.empty()) shown.push_back(family);
    }
    return prometheus::TextSerializer().Serialize(shown);
  }

 private:
  std::vector<MetricFamily> families_;
};

double Number(std::uint64_t value) { return static_cast<double>(value); }

void AddNode(const MetricsSources& sources, Families* families) {
  const NodeStatus& status = sources.node.status;
  families->Begin(MetricType::Gauge, "build_info", "Always 1; the labels tell what runs.");
  families->Add(1, {{"version", Version()}, {"protocol", std::to_string(kProtocolVersion)}});
  families->Begin(MetricType::Gauge, "node_info", "Always 1; the labels name the node.");
  families->Add(1, {{"node", status.node}, {"cluster", status.cluster_id}});
  families->Gauge("start_time_seconds", "When the node was started, since 1970.",
                  absl::ToDoubleSeconds(sources.started_at - absl::UnixEpoch()));
  families->Begin(MetricType::Gauge, "role", "1 for the role that the node has, 0 for the others.");
  for (const char* role : {"primary", "replica", "candidate"}) {
    families->Add(status.role == role ? 1 : 0, {{"role", role}});
  }
  families->Gauge("ready", "1 when the node does its work.", status.ready ? 1 : 0);
  families->Gauge("term", "The current tenure of a primary, as this node knows it.",
                  Number(status.term.value));
  families->Gauge("error", "1 when status shows an error of the node.",
                  status.last_error.empty() ? 0 : 1);
  families->Gauge("orphans", "Change sets kept here that are not in the cluster's history.",
                  Number(status.orphans));
}

void AddLog(const MetricsSources& sources, Families* families) {
  const NodeStatus& status = sources.node.status;
  families->Gauge("log_index", "Index of the last entry of the node's log.",
                  Number(status.log_index.value));
  families->Gauge("log_first_index", "Index of the first entry that the log still has.",
                  Number(status.log_first_index.value));
  families->Gauge("log_term", "Term of the last entry of the log.", Number(status.log_term.value));
  families->Gauge("log_size_bytes", "Bytes of the log on disk.", Number(status.log_size_bytes));
  families->Gauge("log_retention_size_bytes", "data.retention.size of the configuration.",
                  Number(sources.config.data.retention_size));
  families->Gauge("log_retention_age_seconds", "data.retention.age of the configuration.",
                  absl::ToDoubleSeconds(sources.config.data.retention_age));
}

void AddDurations(const Metrics& metrics, Families* families) {
  families->Histogram("commit_duration_seconds",
                      "Primary: from the capture of a commit until it is in the log.",
                      metrics.commit);
  families->Histogram("sync_wait_duration_seconds",
                      "Primary: how long commits waited for the nodes in sync.", metrics.sync_wait);
  families->Counter("sync_wait_failures_total",
                    "Primary: commits that failed because nodes in sync did not acknowledge them.",
                    metrics.sync_wait_failures.value());
  families->Histogram("apply_duration_seconds", "Replica: how long it took to apply an entry.",
                      metrics.apply);
  families->Histogram("visible_lag_seconds",
                      "Replica: from the time of a commit, by the primary's clock, until applied.",
                      metrics.visible_lag);
  families->Counter("apply_pauses_total",
                    "Replica: moments without apply, so that a WAL under readers can restart.",
                    metrics.apply_pauses.value());
  families->Counter("digest_mismatches_total",
                    "Replica: times that a database did not have the digest of its entry.",
                    metrics.digest_mismatches.value());
  families->Counter("copied_databases_total", "Replica: databases that were copied whole.",
                    metrics.copies.value());
}

void AddReplication(const NodeObservation& node, Families* families) {
  const NodeStatus& status = node.status;
  if (status.role != "primary") {
    families->Gauge("connected", "Replica: 1 while it is connected to its primary.",
                    node.connected ? 1 : 0);
    families->Gauge("applied_index", "Replica: all entries up to here are applied.",
                    Number(node.applied_index.value));
    families->Begin(MetricType::Gauge, "lag_seconds", "Replica: how old its data are.");
    if (node.lag_ms) families->Add(Number(*node.lag_ms) / 1e3);
  }
  families->Gauge("in_sync_nodes", "Nodes in sync, as the lease says, the primary with them.",
                  Number(status.in_sync.size()));
  if (status.role != "primary") return;
  families->Gauge("replicas", "Primary: replicas that are connected.",
                  Number(status.replicas.size()));
  families->Begin(MetricType::Gauge, "replica_lag_entries",
                  "Primary: entries of the log that a replica has not acknowledged.");
  for (const ReplicaInfo& replica : status.replicas) {
    const std::uint64_t last = std::max(status.log_index.value, replica.acked_index.value);
    families->Add(Number(last - replica.acked_index.value), {{"replica", replica.node}});
  }
  families->Begin(MetricType::Gauge, "replica_lag_seconds",
                  "Primary: age of the oldest entry that a replica has not acknowledged.");
  for (const ReplicaInfo& replica : status.replicas) {
    families->Add(Number(replica.lag_ms) / 1e3, {{"replica", replica.node}});
  }
  families->Begin(MetricType::Gauge, "replica_in_sync", "Primary: 1 when a replica is in sync.");
  for (const ReplicaInfo& replica : status.replicas) {
    families->Add(replica.in_sync ? 1 : 0, {{"replica", replica.node}});
  }
}

void AddLease(const MetricsSources& sources, Families* families) {
  if (sources.config.lease.type == LeaseType::kStatic) return;
  const NodeObservation& node = sources.node;
  families->Gauge("lease_service_up", "1 while the lease service answers.",
                  node.lease_reachable ? 1 : 0);
  families->Gauge("lease_ttl_seconds", "lease.ttl of the configuration.",
                  absl::ToDoubleSeconds(sources.config.lease.ttl));
  families->Begin(MetricType::Gauge, "lease_age_seconds",
                  "Primary: how long ago it sent the last renewal that was answered.");
  if (node.lease_age) families->Add(absl::ToDoubleSeconds(*node.lease_age));
  families->Begin(MetricType::Gauge, "lease_expiry_seconds",
                  "Primary: how long it may commit without another renewal.");
  if (node.lease_valid_for) families->Add(absl::ToDoubleSeconds(*node.lease_valid_for));
}

void AddDatabases(const std::vector<DatabaseInfo>& databases, Families* families) {
  std::map<std::string, std::uint64_t> counts = {
      {"ok", 0}, {"copying", 0}, {"blocked", 0}, {"stopped", 0}};
  for (const DatabaseInfo& database : databases) ++counts[database.state];
  families->Begin(MetricType::Gauge, "databases", "Databases in each state.");
  for (const auto& [state, count] : counts) families->Add(Number(count), {{"state", state}});
  const std::size_t shown = std::min(databases.size(), kDatabasesShownMax);
  const auto add = [&](const char* name, const char* help, const auto& value_of) {
    families->Begin(MetricType::Gauge, name, help);
    for (std::size_t i = 0; i < shown; ++i) {
      families->Add(value_of(databases[i]), {{"database", databases[i].name}});
    }
  };
  add("database_txid", "Change sets that the database has had.",
      [](const DatabaseInfo& info) { return Number(info.txid.value); });
  add("database_size_bytes", "Pages of the database, in bytes.",
      [](const DatabaseInfo& info) { return Number(info.pages) * Number(info.page_size); });
  add("database_blocked_seconds", "Replica: for how long an application has kept apply waiting.",
      [](const DatabaseInfo& info) {
        return info.state == "blocked" ? Number(info.blocked_for_ms) / 1e3 : 0;
      });
  families->Begin(MetricType::Gauge, "database_state", "1 for the state that the database is in.");
  for (std::size_t i = 0; i < shown; ++i) {
    families->Add(1, {{"database", databases[i].name}, {"state", databases[i].state}});
  }
}

void AddFuse(const fs::FuseMetrics& fuse, Families* families) {
  std::map<std::string, std::uint64_t> requests;
  for (std::size_t opcode = 0; opcode < fs::FuseMetrics::kOperations; ++opcode) {
    const char* const name = fs::FuseOperationName(opcode);
    const std::uint64_t count = fuse.requests(opcode);
    if (name != nullptr || count > 0) requests[name != nullptr ? name : "other"] += count;
  }
  families->Begin(MetricType::Counter, "fuse_requests_total",
                  "Requests that the kernel sent to the mount.");
  for (const auto& [name, count] : requests) families->Add(Number(count), {{"operation", name}});
  families->Begin(MetricType::Counter, "fuse_errors_total",
                  "Requests that were answered with an error; files that are not there left out.");
  std::map<std::string, std::uint64_t> errors = {{"EIO", 0}, {"ENOSPC", 0}};
  for (std::size_t error = 0; error < fs::FuseMetrics::kErrors; ++error) {
    const std::uint64_t count = fuse.errors(error);
    const char* const name = strerrorname_np(static_cast<int>(error));
    if (count > 0) errors[error != 0 && name != nullptr ? name : "other"] += count;
  }
  for (const auto& [name, count] : errors) families->Add(Number(count), {{"errno", name}});
}

void AddHttp(const HttpMetrics& http, Families* families) {
  families->Counter("http_requests_total", "Requests to this server.", http.requests.value());
  families->Counter("http_errors_total", "Those answered with a status of 400 or above.",
                    http.errors.value());
  families->Counter("http_connections_refused_total", "Connections beyond the limit.",
                    http.connections_refused.value());
  families->Counter("http_slow_readers_total",
                    "Event streams cut off because their reader did not take them.",
                    http.slow_readers.value());
  families->Gauge("http_event_streams", "Readers of /events at the moment.",
                  static_cast<double>(http.streams));
}

}  // namespace

std::string MetricsText(const MetricsSources& sources) {
  Families families;
  AddNode(sources, &families);
  AddLog(sources, &families);
  AddDurations(sources.metrics, &families);
  AddReplication(sources.node, &families);
  AddLease(sources, &families);
  AddDatabases(sources.node.status.databases, &families);
  AddFuse(sources.fuse, &families);
  AddHttp(sources.http, &families);
  return families.Text();
}

}  // namespace echofs::cmd
