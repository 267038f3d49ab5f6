#include "cmd/http_endpoints.h"

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/time/clock.h"
#include "replication/ltx.h"
#include "tests/cmd/test_util.h"
#include "tests/replication/log_test_util.h"
#include "tests/replication/temp_directory.h"

namespace echofs::cmd {
namespace {

using nlohmann::json;
using test::HasText;

class FakeObserver final : public NodeObserver {
 public:
  NodeObservation Observe() override { return now; }
  RoleObservation ObserveRole() override {
    return {now.status.role, now.status.term, now.status.primary};
  }
  NodeObservation now;
};

DatabaseInfo Info(const std::string& name, const std::string& state) {
  DatabaseInfo info;
  info.name = name;
  info.state = state;
  return info;
}

void AppendChange(ChangeLog& log, const std::string& database, std::uint64_t txid,
                  std::uint32_t pages, std::uint64_t term = 1) {
  LogEntry entry = TestChange(database, txid, term);
  entry.page_count = pages;
  ChangeSetHeader header;
  header.page_size = entry.page_size;
  header.page_count = pages;
  header.txid = header.min_txid = entry.txid;
  header.term = entry.term;
  std::vector<std::uint8_t> payload;
  VectorSink sink(&payload);
  const auto encoder = LtxEncoder::Start(&sink, header);
  REQUIRE(encoder.ok());
  for (PageNumber page = 1; page <= pages; ++page) {
    REQUIRE((*encoder)->AddPage(page, TestPayload(txid, entry.page_size)).ok());
  }
  REQUIRE((*encoder)->Finish().ok());
  const auto appended = log.Append(entry, payload);
  INFO(appended.status());
  REQUIRE(appended.ok());
}

struct Fixture {
  Fixture() {
    REQUIRE(log->Append(TestOpenTerm(1), {}).ok());
    AppendChange(*log, "a.db", 1, 2);
    AppendChange(*log, "sub/b.db", 1, 3);
    observer.now.status.node = "a";
    observer.now.status.role = "primary";
    observer.now.status.ready = true;
    observer.now.status.primary = "a";
    observer.now.status.databases.push_back(Info("a.db", "ok"));
    endpoints.Started(&observer, log.get(), &http);
  }

  HttpResponse Get(const std::string& target) {
    const std::optional<HttpRequest> request = ParseHttpTarget(target);
    REQUIRE(request);
    std::optional<HttpResponse> at_once = endpoints.AnswerAtOnce(*request);
    return at_once ? *std::move(at_once) : endpoints.Answer(*request);
  }
  json GetJson(const std::string& target, unsigned status) {
    const HttpResponse response = Get(target);
    INFO(response.body);
    CHECK(response.status == status);
    return json::parse(response.body);
  }
  std::unique_ptr<HttpStream> Events(const std::string& query) {
    HttpResponse response = Get("/events" + query);
    INFO(response.body);
    REQUIRE(response.stream != nullptr);
    CHECK(response.content_type == "application/x-ndjson");
    return std::move(response.stream);
  }

  TempDirectory directory;
  std::unique_ptr<ChangeLog> log = OpenLog(directory.path());
  Config config;
  Metrics metrics;
  fs::FuseMetrics fuse;
  HttpMetrics http;
  FakeObserver observer;
  HttpEndpoints endpoints{config, &metrics, &fuse};
};

std::vector<json> Lines(HttpStream& stream) {
  std::vector<json> lines;
  std::istringstream text(stream.Next().value_or(""));
  for (std::string line; std::getline(text, line);) lines.push_back(json::parse(line));
  return lines;
}

std::string MetricLine(const std::string& text, const std::string& name) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.compare(0, name.size() + 1, name + " ") == 0) return line.substr(name.size() + 1);
  }
  return "none";
}

TEST_CASE("endpoints: a path that is none gets 404 and the list of paths") {
  Fixture f;
  const json answer = f.GetJson("/nothing", 404);
  CHECK(answer["paths"] == json({"/metrics", "/health", "/health/ready", "/info", "/events"}));
}

TEST_CASE("endpoints: a node that starts or stops lives and is not ready") {
  Config config;
  Metrics metrics;
  fs::FuseMetrics fuse;
  HttpEndpoints endpoints(config, &metrics, &fuse);
  CHECK(endpoints.AnswerAtOnce({"/health", {}})->status == 200);
  const auto ready = endpoints.AnswerAtOnce({"/health/ready", {}});
  CHECK(ready->status == 503);
  CHECK_THAT(ready->body, HasText("it is starting"));
  CHECK(endpoints.AnswerAtOnce({"/metrics", {}})->status == 503);

  Fixture f;
  CHECK(f.Get("/health/ready").status == 200);
  f.endpoints.Stopping();
  CHECK(f.GetJson("/health/ready", 503)["reason"] == "it is stopping");
  CHECK(f.Get("/health").status == 200);
  CHECK(f.Get("/events").status == 503);
}

TEST_CASE("endpoints: readiness looks at the age of a replica's data when it is asked to") {
  Fixture f;
  NodeObservation& now = f.observer.now;
  CHECK(f.GetJson("/health/ready?max-lag=1ms", 200)["role"] == "primary");
  now.status.role = "replica";
  CHECK_THAT(f.GetJson("/health/ready?max-lag=5s", 503)["reason"].get<std::string>(),
             HasText("not known"));
  CHECK(f.Get("/health?ready").status == 200);
  now.lag_ms = 5000;
  CHECK(f.GetJson("/health?ready&max-lag=5s", 200)["lag_ms"] == 5000);
  now.lag_ms = 5001;
  CHECK(f.GetJson("/health/ready?max-lag=5s", 503)["reason"] ==
        "its data are 5.001s old, more than 5s");
  CHECK_THAT(f.GetJson("/health/ready?max-lag=5", 400)["error"].get<std::string>(),
             HasText("max-lag: '5' is not a duration"));
  now.status.ready = false;
  now.status.last_error = "no connection";
  CHECK_THAT(f.GetJson("/health/ready", 503)["reason"].get<std::string>(),
             HasText("no connection"));
}

TEST_CASE("endpoints: events are the log's entries from an index on, then what comes") {
  Fixture f;
  const auto stream = f.Events("?from=1");
  std::vector<json> lines = Lines(*stream);
  REQUIRE(lines.size() == 4);
  CHECK(lines[0]["type"] == "role");
  CHECK(lines[0]["role"] == "primary");
  CHECK(lines[1]["type"] == "term");
  CHECK(lines[1]["index"] == 1);
  CHECK(lines[2]["type"] == "transaction");
  CHECK(lines[2]["database"] == "a.db");
  CHECK(lines[2]["txid"] == "0000000000000001");
  CHECK(lines[2]["pages"] == 2);
  CHECK(lines[3]["index"] == 3);
  CHECK(lines[3]["pages"] == 3);
  CHECK(*stream->Next() == "");
  REQUIRE(f.log->Append(TestDrop("a.db", 2), {}).ok());
  lines = Lines(*stream);
  REQUIRE(lines.size() == 1);
  CHECK(lines[0]["index"] == 4);
  CHECK(lines[0]["kind"] == "drop");

  const auto tail = f.Events("");
  CHECK(Lines(*tail).size() == 1);  // the role
  AppendChange(*f.log, "sub/b.db", 2, 1);
  CHECK(Lines(*tail)[0]["index"] == 5);
}

TEST_CASE("endpoints: a change of the role is an event") {
  Fixture f;
  const auto stream = f.Events("");
  CHECK(Lines(*stream).size() == 1);
  f.observer.now.status.role = "replica";
  f.observer.now.status.primary = "b";
  std::vector<json> lines;
  REQUIRE(test::WaitFor([&] { return !(lines = Lines(*stream)).empty(); }));
  CHECK(lines[0]["type"] == "role");
  CHECK(lines[0]["primary"] == "b");
}

TEST_CASE("endpoints: events that the log has no more, or not yet, are errors with its ends") {
  Fixture f;
  const json late = f.GetJson("/events?from=5", 416);
  CHECK(late["last_index"] == 3);
  CHECK_FALSE(f.Get("/events?from=4").stream == nullptr);
  REQUIRE(f.log->Reset({10}, {1}, {}).ok());
  CHECK(f.GetJson("/events?from=3", 410)["first_index"] == 11);
  for (const char* query :
       {"?from=x", "?from=-1", "?from=", "?from=0", "?term=1", "?from=99999999999999999999"}) {
    INFO(query);
    CHECK(f.Get(std::string("/events") + query).status == 400);
  }
}

TEST_CASE("endpoints: events whose history was cut end, and do not go on in another one") {
  Fixture f;
  const auto stream = f.Events("?from=1");
  CHECK(Lines(*stream).size() == 4);
  REQUIRE(f.log->TruncateAfter({2}).ok());
  AppendChange(*f.log, "sub/b.db", 1, 1, 2);
  const std::vector<json> lines = Lines(*stream);
  REQUIRE(lines.size() == 1);
  CHECK(lines[0]["type"] == "end");
  CHECK(lines[0]["next_index"] == 4);
  CHECK_FALSE(stream->Next().has_value());
  // Entry 3, which was read, was of term 1.
  CHECK_THAT(f.GetJson("/events?from=4&term=1", 409)["error"].get<std::string>(),
             HasText("not in the cluster's history any more"));
  CHECK_FALSE(f.Get("/events?from=4&term=2").stream == nullptr);
}

TEST_CASE("endpoints: event streams end when the node stops") {
  Fixture f;
  const auto stream = f.Events("?from=4");
  f.endpoints.Stopping();
  const std::vector<json> lines = Lines(*stream);
  CHECK(lines.back()["reason"] == "this node is stopping");
  CHECK_FALSE(stream->Next().has_value());
}

TEST_CASE("endpoints: metrics have what was counted, and labels that are UTF-8") {
  Fixture f;
  f.metrics.commit.Observe(absl::Microseconds(30));
  f.metrics.commit.Observe(absl::Minutes(2));
  f.metrics.commit.Observe(-absl::Seconds(1));
  f.fuse.CountError(EIO);
  f.observer.now.status.databases.push_back(Info("\xff\"\n.db", "stopped"));
  const HttpResponse response = f.Get("/metrics");
  CHECK(response.content_type == "text/plain; version=0.0.4; charset=utf-8");
  const auto line = [&](const std::string& name) { return MetricLine(response.body, name); };
  CHECK(line("echofs_commit_duration_seconds_bucket{le=\"2.5e-05\"}") == "1");
  CHECK(line("echofs_commit_duration_seconds_bucket{le=\"5e-05\"}") == "2");
  CHECK(line("echofs_commit_duration_seconds_bucket{le=\"60\"}") == "2");
  CHECK(line("echofs_commit_duration_seconds_bucket{le=\"+Inf\"}") == "3");
  CHECK(line("echofs_commit_duration_seconds_count") == "3");
  CHECK(line("echofs_commit_duration_seconds_sum") == "120.00003");
  CHECK(line("echofs_fuse_errors_total{errno=\"EIO\"}") == "1");
  CHECK(line("echofs_role{role=\"primary\"}") == "1");
  CHECK(line("echofs_role{role=\"replica\"}") == "0");
  CHECK(line("echofs_databases{state=\"stopped\"}") == "1");
  CHECK(line("echofs_database_state{database=\"\xef\xbf\xbd\\\"\\n.db\",state=\"stopped\"}") ==
        "1");
}

TEST_CASE("endpoints: metrics of many databases are bounded") {
  Fixture f;
  for (std::size_t i = 0; i < 2 * kDatabasesShownMax; ++i) {
    f.observer.now.status.databases.push_back(Info(std::to_string(i), "ok"));
  }
  const std::string text = f.Get("/metrics").body;
  CHECK(MetricLine(text, "echofs_databases{state=\"ok\"}") ==
        std::to_string(2 * kDatabasesShownMax + 1));
  std::size_t shown = 0;
  for (std::size_t at = 0; (at = text.find("\nechofs_database_txid{", at)) != std::string::npos;
       ++at) {
    ++shown;
  }
  CHECK(shown == kDatabasesShownMax);
}

}  // namespace
}  // namespace echofs::cmd
