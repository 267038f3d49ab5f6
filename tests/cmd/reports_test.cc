#include "cmd/reports.h"

#include <sstream>

#include "cmd/log_setup.h"
#include "tests/cmd/fake_admin_source.h"
#include "tests/cmd/test_util.h"

namespace echofs::cmd {
namespace {

using test::HasText;

std::vector<std::string> Lines(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

TEST_CASE("reports: the status as JSON is exactly the object that scripts rely on") {
  CHECK(StatusJson(test::FakeAdminSource().Status()) == R"({
  "node": "a",
  "cluster_id": "c1",
  "role": "primary",
  "ready": true,
  "term": 3,
  "primary": "a",
  "log": {
    "index": 12,
    "term": 3
  },
  "in_sync": [
    "a",
    "b"
  ],
  "databases": [
    {
      "name": "app.db",
      "txid": "0000000000000003",
      "digest": "fedcba9876543210",
      "pages": 10,
      "page_size": 4096,
      "journal_mode": "wal",
      "state": "ok",
      "applied_index": 12
    },
    {
      "name": "sub/other.db",
      "txid": "000000000000001f",
      "digest": "0000000000000001",
      "pages": 10,
      "page_size": 4096,
      "journal_mode": "delete",
      "state": "blocked",
      "applied_index": 12,
      "blocked_by_pid": 4711,
      "blocked_for_ms": 1500
    }
  ],
  "replicas": [
    {
      "node": "b",
      "address": "10.0.0.2:20202",
      "acked_index": 11,
      "lag_ms": 40,
      "in_sync": true
    }
  ],
  "nodes": [
    {
      "node": "a",
      "address": "10.0.0.1:20202",
      "primary": true,
      "candidate": true,
      "in_sync": true,
      "log": {
        "index": 12,
        "term": 3
      }
    },
    {
      "node": "b",
      "address": "10.0.0.2:20202",
      "primary": false,
      "candidate": true,
      "in_sync": true,
      "log": {
        "index": 11,
        "term": 3
      },
      "lag_ms": 40
    },
    {
      "node": "reports",
      "address": "10.0.0.3:20202",
      "primary": false,
      "candidate": false,
      "in_sync": false,
      "log": {
        "index": 7,
        "term": 2
      }
    }
  ],
  "orphans": 5,
  "rewinds": {
    "databases": 2,
    "pages": 30,
    "bytes": 122880
  },
  "http": "127.0.0.1:20203"
}
)");
}

TEST_CASE("reports: a status without databases and replicas has empty lists") {
  const std::string json = StatusJson(NodeStatus{});
  CHECK_THAT(json, HasText("\"in_sync\": []"));
  CHECK_THAT(json, HasText("\"databases\": []"));
  CHECK_THAT(json, HasText("\"replicas\": []"));
  CHECK_THAT(json, HasText("\"nodes\": []"));
  CHECK_THAT(StatusText(NodeStatus{}), HasText("no databases yet"));
  CHECK(DatabasesJson({}) == "[]\n");
}

TEST_CASE("reports: the status for people names progress, blocking process and error") {
  const std::string text = StatusText(test::FakeAdminSource().Status());
  CHECK_THAT(text, HasText("a (primary, ready)"));
  CHECK_THAT(text, HasText("the disk is full"));
  CHECK_THAT(text, HasText("orphans   5 change sets"));
  CHECK_THAT(text, HasText("25% (25 of 100 pages)"));
  CHECK_THAT(text, HasText("blocked"));
  CHECK_THAT(text, HasText("by process 4711"));
  CHECK_THAT(text, HasText("a reader holds a lock"));
  CHECK_THAT(text, HasText("64.0 KiB"));
  CHECK_THAT(text, HasText("10.0.0.2:20202"));
}

TEST_CASE("reports: the status for people has one table of all nodes, 80 columns wide at most") {
  NodeStatus status = test::FakeAdminSource().Status();
  status.databases.clear();
  const std::string table =
      "\nNODE     ROLE     ADDRESS         TERM/INDEX  LAG    CANDIDATE  IN SYNC\n"
      "a        primary  10.0.0.1:20202  3/12        -      yes        yes\n"
      "b        replica  10.0.0.2:20202  3/11        40 ms  yes        yes\n"
      "reports  replica  10.0.0.3:20202  2/7         -      no         no\n";
  CHECK_THAT(StatusText(status), HasText("primary   a, term 3\n") && HasText(table));
  CHECK_THAT(StatusText(status), !HasText("REPLICA "));
  for (NodeInfo& node : status.nodes) {
    node.log_index = {1234567};
    node.log_term = {123};
    node.address = "192.168.100.100:20202";
  }
  for (const std::string& line : Lines(StatusText(status))) CHECK(line.size() <= 80);
}

TEST_CASE("reports: a node that waits for a primary is shown as what it is") {
  NodeStatus status = test::FakeAdminSource().Status();
  status.role = "candidate";
  status.primary = "";
  status.nodes[0].primary = false;
  CHECK_THAT(StatusText(status), HasText("primary   unknown, term 3\n"));
  CHECK_THAT(StatusText(status), HasText("a        candidate  10.0.0.1:20202"));
}

TEST_CASE("reports: replicas that the lease service does not know have a table of their own") {
  NodeStatus status = test::FakeAdminSource().Status();
  status.nodes.clear();
  CHECK_THAT(StatusText(status), HasText("REPLICA  ADDRESS         ACKED  LAG    IN SYNC\n"
                                         "b        10.0.0.2:20202  11     40 ms  yes\n"));
  CHECK_THAT(StatusText(status), !HasText("CANDIDATE"));
}

TEST_CASE("reports: who is the primary after a handoff") {
  CHECK(PrimaryText({"b", {7}}) == "b is the primary now, term 7\n");
  CHECK_THAT(PrimaryText({}), HasText("'echofs status'"));
}

TEST_CASE("reports: a promotion by force says what it loses") {
  NodeStatus status = test::FakeAdminSource().Status();
  CHECK(ForceWarning(status).empty());
  status.role = "replica";
  status.node = "b";
  CHECK_THAT(ForceWarning(status), HasText("a is the primary and is asked to hand off"));

  status.primary = "";
  status.log_index = {11};
  std::string warning = ForceWarning(status);
  CHECK_THAT(warning, HasText("this node's log ends at entry 11 of term 3"));
  CHECK_THAT(warning, HasText("\na has more: its log ends at entry 12 of term 3\n"));
  CHECK_THAT(warning, !HasText("reports has more") && !HasText("not in sync"));

  status.node = "reports";
  status.log_index = {100};
  status.log_term = {2};
  warning = ForceWarning(status);
  CHECK_THAT(warning, HasText("\nb has more: its log ends at entry 11 of term 3\n"));
  CHECK_THAT(warning, HasText("reports is not in sync (in sync: a, b)"));
}

TEST_CASE("reports: lists as JSON, also with names that are not UTF-8") {
  CHECK(LocalFilesJson({"a", "b/c"}) == "[\n  \"a\",\n  \"b/c\"\n]\n");
  CHECK_THAT(LocalFilesJson({"\xff"}), HasText("\xef\xbf\xbd"));
}

TEST_CASE("reports: change sets, one a line") {
  test::FakeAdminSource source;
  std::string json;
  std::string text;
  REQUIRE(source
              .ChangeSets("app.db", {},
                          [&](const ChangeSetSummary& summary) {
                            json = ChangeSetJson(summary);
                            text = ChangeSetText(summary);
                            return false;
                          })
              .ok());
  CHECK(json == R"({"index":10,"term":3,"txid":"0000000000000001","kind":"change",)"
                R"("timestamp_ms":1700000000123,"pages":2,"bytes":8400,"page_count":10,)"
                R"("digest":"fedcba9876543210"})"
                "\n");
  CHECK_THAT(text, HasText("2023-11-14 22:13:20.123"));
  CHECK_THAT(text, HasText("fedcba9876543210"));
}

TEST_CASE("log: one line an event in both formats") {
  CHECK(FormatLogLine(LogFormat::kText, 1700000000123, "warn", "a\nb\r") ==
        "2023-11-14T22:13:20.123Z warn  a\\nb\\r");
  CHECK(FormatLogLine(LogFormat::kJson, 1700000000123, "info", "say \"x\"\n") ==
        R"({"time":"2023-11-14T22:13:20.123Z","level":"info","message":"say \"x\"\n"})");
}

}  // namespace
}  // namespace echofs::cmd
