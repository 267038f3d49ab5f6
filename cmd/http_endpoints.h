// What a node answers over HTTP: /metrics, /health, /info, /events (design section 11). docs/operations.md describes
// the answers.
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "cmd/config.h"
#include "cmd/http_server.h"
#include "cmd/metrics_text.h"
#include "cmd/node_observer.h"
#include "fs/fuse_metrics.h"
#include "replication/change_log.h"
#include "replication/metrics.h"

namespace echofs::cmd {

// Owns nothing that it is given.
class HttpEndpoints final : public HttpHandler {
 public:
  HttpEndpoints(const Config& config, const Metrics* metrics, const fs::FuseMetrics* fuse)
      : config_(config), metrics_(metrics), fuse_(fuse) {}

  // From now on the node can be asked; before that it is said to be starting. Once.
  void Started(NodeObserver* node, const ChangeLog* log, const HttpMetrics* http);
  // From now on it is not ready, and event streams end.
  void Stopping() { stopping_ = true; }

  std::optional<HttpResponse> AnswerAtOnce(const HttpRequest& request) override;
  HttpResponse Answer(const HttpRequest& request) override;

 private:
  HttpResponse Health(const HttpRequest& request) const;
  HttpResponse Info() const;
  HttpResponse Events(const HttpRequest& request) const;

  const Config& config_;
  const Metrics* const metrics_;
  const fs::FuseMetrics* const fuse_;
  const absl::Time started_at_ = absl::Now();
  std::atomic<bool> started_{false};
  std::atomic<bool> stopping_{false};
  NodeObserver* node_ = nullptr;       // set by Started
  const ChangeLog* log_ = nullptr;     // set by Started
  const HttpMetrics* http_ = nullptr;  // set by Started
};

// Why a node is not ready to serve applications; empty when it is. `lag_max`: how old its data may be at most.
std::string WhyNotReady(const NodeObservation& node, std::optional<absl::Duration> lag_max);

}  // namespace echofs::cmd
