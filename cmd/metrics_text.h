// /metrics: what a node counts and knows, in Prometheus' text format. docs/operations.md has the table of the metrics.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "cmd/config.h"
#include "cmd/http_server.h"
#include "cmd/node_observer.h"
#include "fs/fuse_metrics.h"
#include "replication/metrics.h"

namespace echofs::cmd {

// Metrics with a database's name are shown of so many databases at most; `echofs_databases` counts all.
inline constexpr std::size_t kDatabasesShownMax = 1000;

struct MetricsSources {
  const Config& config;
  const NodeObservation node;
  absl::Time started_at;
  const Metrics& metrics;
  const fs::FuseMetrics& fuse;
  const HttpMetrics& http;
};

std::string MetricsText(const MetricsSources& sources);

}  // namespace echofs::cmd
