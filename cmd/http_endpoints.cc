#include "cmd/http_endpoints.h"

#include <fmt/format.h>
#include <unistd.h>

#include <charconv>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/time/clock.h"
#include "cmd/config_values.h"
#include "cmd/event_stream.h"
#include "cmd/version.h"
#include "replication/limits.h"

namespace echofs::cmd {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kPaths[] = {"/metrics", "/health", "/health/ready", "/info", "/events"};

HttpResponse JsonResponse(unsigned status, const Json& json) {
  HttpResponse response;
  response.status = status;
  response.body = json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  return response;
}

HttpResponse NotFound(const std::string& path) {
  Json json = {{"error", fmt::format("there is nothing at {}", path)}, {"paths", kPaths}};
  return JsonResponse(404, json);
}

bool IsKnown(const std::string& path) {
  for (const char* known : kPaths) {
    if (path == known) return true;
  }
  return false;
}

bool AsksForReadiness(const HttpRequest& request) {
  return request.path == "/health/ready" ||
         (request.path == "/health" && request.query.contains("ready"));
}

HttpResponse NotReady(const std::string& reason) {
  return JsonResponse(503, {{"status", "not ready"}, {"reason", reason}});
}

// The number of a query; nothing when it is not there.
absl::StatusOr<std::optional<std::uint64_t>> NumberOf(const HttpRequest& request,
                                                      const std::string& key) {
  const auto found = request.query.find(key);
  if (found == request.query.end()) return std::nullopt;
  const std::string& text = found->second;
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return absl::InvalidArgumentError(fmt::format("{}={} is not a whole number", key, text));
  }
  return value;
}

HttpResponse EventsError(unsigned status, const std::string& message, const ChangeLog& log) {
  return JsonResponse(status, {{"error", message},
                               {"first_index", log.first_index().value},
                               {"last_index", log.last_index().value}});
}

}  // namespace

std::string WhyNotReady(const NodeObservation& node, std::optional<absl::Duration> lag_max) {
  if (!node.status.ready) {
    return node.status.last_error.empty()
               ? "it has not had everything that its primary has"
               : fmt::format("it has not had everything that its primary has: {}",
                             node.status.last_error);
  }
  if (!lag_max || node.status.role == "primary") return "";
  if (!node.lag_ms) return "it is not known how old its data are";
  const absl::Duration lag = absl::Milliseconds(*node.lag_ms);
  if (lag <= *lag_max) return "";
  return fmt::format("its data are {} old, more than {}", absl::FormatDuration(lag),
                     absl::FormatDuration(*lag_max));
}

void HttpEndpoints::Started(NodeObserver* node, const ChangeLog* log, const HttpMetrics* http) {
  node_ = node;
  log_ = log;
  http_ = http;
  started_.store(true, std::memory_order_release);
}

std::optional<HttpResponse> HttpEndpoints::AnswerAtOnce(const HttpRequest& request) {
  if (!IsKnown(request.path)) return NotFound(request.path);
  const bool started = started_.load(std::memory_order_acquire);
  if (AsksForReadiness(request)) {
    if (stopping_) return NotReady("it is stopping");
    if (!started) return NotReady("it is starting");
    return std::nullopt;
  }
  if (request.path == "/health") return JsonResponse(200, {{"status", "ok"}});
  if (!started) return HttpError(503, "this node is starting");
  return std::nullopt;
}

HttpResponse HttpEndpoints::Answer(const HttpRequest& request) {
  if (AsksForReadiness(request)) return Health(request);
  if (request.path == "/info") return Info();
  if (request.path == "/events") return Events(request);
  HttpResponse response;
  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  response.body = MetricsText({.config = config_,
                               .node = node_->Observe(),
                               .started_at = started_at_,
                               .metrics = *metrics_,
                               .fuse = *fuse_,
                               .http = *http_});
  return response;
}

HttpResponse HttpEndpoints::Health(const HttpRequest& request) const {
  std::optional<absl::Duration> lag_max;
  if (const auto found = request.query.find("max-lag"); found != request.query.end()) {
    const absl::StatusOr<absl::Duration> parsed = ParseDuration(found->second);
    if (!parsed.ok()) {
      return HttpError(400, fmt::format("max-lag: {}", std::string(parsed.status().message())));
    }
    lag_max = *parsed;
  }
  const NodeObservation node = node_->Observe();
  if (const std::string why = WhyNotReady(node, lag_max); !why.empty()) return NotReady(why);
  Json json = {{"status", "ready"}, {"role", node.status.role}};
  if (node.status.role != "primary" && node.lag_ms) json["lag_ms"] = *node.lag_ms;
  return JsonResponse(200, json);
}

HttpResponse HttpEndpoints::Info() const {
  const NodeStatus status = node_->Observe().status;
  return JsonResponse(200, {{"node", status.node},
                            {"version", Version()},
                            {"protocol_version", kProtocolVersion},
                            {"role", status.role},
                            {"ready", status.ready},
                            {"term", status.term.value},
                            {"primary", status.primary},
                            {"cluster_id", status.cluster_id},
                            {"lease", LeaseTypeName(config_.lease.type)},
                            {"advertise", config_.grpc.advertise},
                            {"mount_dir", config_.fuse.dir},
                            {"data_dir", config_.data.dir},
                            {"pid", ::getpid()},
                            {"log",
                             {{"first_index", status.log_first_index.value},
                              {"index", status.log_index.value},
                              {"term", status.log_term.value}}}});
}

HttpResponse HttpEndpoints::Events(const HttpRequest& request) const {
  if (stopping_) return HttpError(503, "this node is stopping");
  const absl::StatusOr<std::optional<std::uint64_t>> from = NumberOf(request, "from");
  if (!from.ok()) return HttpError(400, std::string(from.status().message()));
  const absl::StatusOr<std::optional<std::uint64_t>> term = NumberOf(request, "term");
  if (!term.ok()) return HttpError(400, std::string(term.status().message()));
  if (*term && !*from) return HttpError(400, "term=TERM is of the entry before from=INDEX");
  const LogIndex first{from->value_or(log_->last_index().Next().value)};
  if (first.value == 0) return HttpError(400, "from=0: the first entry of a log is 1");
  if (first > log_->last_index().Next()) {
    return EventsError(416, fmt::format("the log ends before entry {}", first.value), *log_);
  }
  if (first < log_->first_index()) {
    return EventsError(410, fmt::format("the log does not have entry {} any more", first.value),
                       *log_);
  }
  if (*term && first.value > 1) {
    const absl::StatusOr<Term> found = log_->TermAt({first.value - 1});
    if (!found.ok() || found->value != **term) {
      return EventsError(409,
                         fmt::format("entry {} of this node's log is not of term {}: some of what "
                                     "was read before is not in the cluster's history any more",
                                     first.value - 1, **term),
                         *log_);
    }
  }
  HttpResponse response;
  response.content_type = "application/x-ndjson";
  response.stream = std::make_unique<EventStream>(node_, log_, first, &stopping_);
  return response;
}

}  // namespace echofs::cmd
