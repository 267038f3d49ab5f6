#include "cmd/reports.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>

#include "cmd/progress.h"
#include "cmd/report_table.h"
#include "replication/lease.h"

namespace echofs::cmd {
namespace {

// Keys stay in the order in which they are set.
using Json = nlohmann::ordered_json;

// A file's name need not be UTF-8.
std::string Dump(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string Hex(std::uint64_t value) { return fmt::format("{:016x}", value); }

Json ToJson(const DatabaseInfo& database) {
  Json json = {{"name", database.name},           {"txid", Hex(database.txid.value)},
               {"digest", Hex(database.digest)},  {"pages", database.pages},
               {"page_size", database.page_size}, {"journal_mode", database.journal_mode},
               {"state", database.state},         {"applied_index", database.applied_index.value}};
  if (database.blocked_by_pid != 0) json["blocked_by_pid"] = database.blocked_by_pid;
  if (database.state == "blocked") json["blocked_for_ms"] = database.blocked_for_ms;
  return json;
}

Json ToJson(const std::vector<DatabaseInfo>& databases) {
  Json list = Json::array();
  for (const DatabaseInfo& database : databases) list.push_back(ToJson(database));
  return list;
}

std::string UtcTime(std::int64_t ms) {
  const std::time_t seconds = static_cast<std::time_t>(ms / 1000);
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  return fmt::format("{:%Y-%m-%d %H:%M:%S}.{:03}", utc, ms % 1000);
}

// The state, and beside it what a person wants to know next.
std::string StateText(const DatabaseInfo& database) {
  std::string text = database.state;
  if (database.copy_pages != 0) {
    text +=
        fmt::format(" {}% ({} of {} pages)", 100 * database.copy_pages_done / database.copy_pages,
                    database.copy_pages_done, database.copy_pages);
  }
  if (database.blocked_by_pid != 0) {
    text += fmt::format(" by process {}", database.blocked_by_pid);
  }
  if (database.state == "blocked") text += fmt::format(" for {} ms", database.blocked_for_ms);
  if (!database.detail.empty()) text += ": " + database.detail;
  return text;
}

Json ToJson(const NodeInfo& node) {
  Json json = {{"node", node.node},
               {"address", node.address},
               {"primary", node.primary},
               {"candidate", node.candidate},
               {"in_sync", node.in_sync},
               {"log", {{"index", node.log_index.value}, {"term", node.log_term.value}}}};
  if (node.lag_ms) json["lag_ms"] = *node.lag_ms;
  return json;
}

const char* YesOrNo(bool value) { return value ? "yes" : "no"; }

// Of itself this node knows more than whether it is the primary.
std::string RoleOf(const NodeInfo& node, const NodeStatus& status) {
  if (node.node == status.node) return status.role;
  return node.primary ? "primary" : "replica";
}

std::string NodesText(const NodeStatus& status) {
  std::vector<std::vector<std::string>> rows = {
      {"NODE", "ROLE", "ADDRESS", "TERM/INDEX", "LAG", "CANDIDATE", "IN SYNC"}};
  for (const NodeInfo& node : status.nodes) {
    rows.push_back({node.node, RoleOf(node, status), node.address,
                    fmt::format("{}/{}", node.log_term.value, node.log_index.value),
                    node.lag_ms ? fmt::format("{} ms", *node.lag_ms) : "-", YesOrNo(node.candidate),
                    YesOrNo(node.in_sync)});
  }
  return ReportTable(rows);
}

std::string ReplicasText(const std::vector<ReplicaInfo>& replicas) {
  std::vector<std::vector<std::string>> rows = {{"REPLICA", "ADDRESS", "ACKED", "LAG", "IN SYNC"}};
  for (const ReplicaInfo& replica : replicas) {
    rows.push_back({replica.node, replica.address, std::to_string(replica.acked_index.value),
                    fmt::format("{} ms", replica.lag_ms), YesOrNo(replica.in_sync)});
  }
  return ReportTable(rows);
}

}  // namespace

std::string StatusJson(const NodeStatus& status) {
  Json replicas = Json::array();
  for (const ReplicaInfo& replica : status.replicas) {
    replicas.push_back({{"node", replica.node},
                        {"address", replica.address},
                        {"acked_index", replica.acked_index.value},
                        {"lag_ms", replica.lag_ms},
                        {"in_sync", replica.in_sync}});
  }
  Json nodes = Json::array();
  for (const NodeInfo& node : status.nodes) nodes.push_back(ToJson(node));
  return Dump({{"node", status.node},
               {"cluster_id", status.cluster_id},
               {"role", status.role},
               {"ready", status.ready},
               {"term", status.term.value},
               {"primary", status.primary},
               {"log", {{"index", status.log_index.value}, {"term", status.log_term.value}}},
               {"in_sync", status.in_sync},
               {"databases", ToJson(status.databases)},
               {"replicas", std::move(replicas)},
               {"nodes", std::move(nodes)},
               {"orphans", status.orphans},
               {"rewinds",
                {{"databases", status.rewinds.databases},
                 {"pages", status.rewinds.pages},
                 {"bytes", status.rewinds.bytes}}},
               {"http", status.http}},
              2);
}

std::string StatusText(const NodeStatus& status) {
  std::string text =
      fmt::format("node      {} ({}{}), echofs {}, process {}\n", status.node, status.role,
                  status.ready ? ", ready" : ", not ready yet", status.version, status.pid);
  text += fmt::format("primary   {}, term {}\n",
                      status.primary.empty() ? "unknown" : status.primary, status.term.value);
  if (!status.cluster_id.empty()) text += fmt::format("cluster   {}\n", status.cluster_id);
  text += fmt::format("log       index {} (term {}), kept from index {}, {}\n",
                      status.log_index.value, status.log_term.value, status.log_first_index.value,
                      BytesText(status.log_size_bytes));
  if (!status.http.empty()) text += fmt::format("http      {}\n", status.http);
  if (status.orphans > 0) {
    text += fmt::format(
        "orphans   {} change sets not in the cluster's history: 'echofs orphans list'\n",
        status.orphans);
  }
  if (!status.last_error.empty()) text += fmt::format("error     {}\n", status.last_error);
  text += "\n" + DatabasesText(status.databases);
  if (!status.nodes.empty()) text += "\n" + NodesText(status);
  // Those of which the lease service does not know; with a static lease all.
  std::vector<ReplicaInfo> others;
  for (const ReplicaInfo& replica : status.replicas) {
    const auto is_it = [&](const NodeInfo& node) { return node.node == replica.node; };
    if (std::none_of(status.nodes.begin(), status.nodes.end(), is_it)) others.push_back(replica);
  }
  if (!others.empty()) text += "\n" + ReplicasText(others);
  return text;
}

std::string PrimaryText(const PrimaryInfo& primary) {
  if (primary.node.empty()) {
    return "the handoff is done; this node does not know its primary yet, 'echofs status' will\n";
  }
  return fmt::format("{} is the primary now, term {}\n", primary.node, primary.term.value);
}

// As far as this node can know it.
std::string ForceWarning(const NodeStatus& status) {
  if (status.role == "primary") return "";
  if (!status.primary.empty()) {
    return fmt::format("{} is the primary and is asked to hand off, by which nothing is lost\n",
                       status.primary);
  }
  const LogPosition own{status.log_term, status.log_index};
  const auto in_sync = [&status](const std::string& node) {
    return std::find(status.in_sync.begin(), status.in_sync.end(), node) != status.in_sync.end();
  };
  std::string text = fmt::format(
      "this node's log ends at entry {} of term {}; what other nodes have beyond that "
      "will not be in the cluster's history any more, and becomes orphans on them\n",
      own.index.value, own.term.value);
  for (const NodeInfo& node : status.nodes) {
    const LogPosition its{node.log_term, node.log_index};
    if (node.node == status.node || its <= own) continue;
    text += fmt::format("{} has more: its log ends at entry {} of term {}\n", node.node,
                        its.index.value, its.term.value);
  }
  if (!status.in_sync.empty() && !in_sync(status.node)) {
    text +=
        fmt::format("{} is not in sync (in sync: {}): commits that were acknowledged may be lost\n",
                    status.node, fmt::join(status.in_sync, ", "));
  }
  return text;
}

std::string DatabasesJson(const std::vector<DatabaseInfo>& databases) {
  return Dump(ToJson(databases), 2);
}

std::string DatabasesText(const std::vector<DatabaseInfo>& databases) {
  if (databases.empty()) return "no databases yet\n";
  std::vector<std::vector<std::string>> rows = {
      {"DATABASE", "TXID", "DIGEST", "SIZE", "PAGE SIZE", "JOURNAL", "STATE"}};
  for (const DatabaseInfo& database : databases) {
    rows.push_back({database.name, Hex(database.txid.value), Hex(database.digest),
                    BytesText(std::uint64_t{database.pages} * database.page_size),
                    std::to_string(database.page_size), database.journal_mode,
                    StateText(database)});
  }
  return ReportTable(rows);
}

std::string LocalFilesJson(const std::vector<std::string>& files) { return Dump(files, 2); }

std::string OrphansJson(const std::vector<OrphanInfo>& list) {
  Json json = Json::array();
  for (const OrphanInfo& info : list) {
    Json databases = Json::object();
    for (const auto& [name, count] : info.databases) databases[name] = count;
    json.push_back({{"id", info.id},
                    {"change_sets", info.change_sets},
                    {"databases", std::move(databases)},
                    {"bytes", info.bytes},
                    {"kept_ms", info.kept_ms},
                    {"first_index", info.first.value},
                    {"last_index", info.last.value},
                    {"term", info.term.value},
                    {"primary", info.primary},
                    {"primary_term", info.primary_term.value}});
    if (info.common.known) json.back()["common_index"] = info.common.index.value;
    if (!info.damage.empty()) json.back()["damage"] = info.damage;
  }
  return Dump(json, 2);
}

std::string OrphansText(const std::vector<OrphanInfo>& list) {
  if (list.empty()) return "no orphans: all that this node committed is in the cluster's history\n";
  std::vector<std::vector<std::string>> rows = {
      {"ID", "KEPT (UTC)", "CHANGE SETS", "SIZE", "NOT IN THE HISTORY OF", "DATABASES"}};
  for (const OrphanInfo& info : list) {
    std::string databases;
    for (const auto& [name, count] : info.databases) {
      databases += fmt::format("{}{} ({})", databases.empty() ? "" : ", ", name, count);
    }
    rows.push_back({info.id, UtcTime(info.kept_ms), std::to_string(info.change_sets),
                    BytesText(info.bytes),
                    fmt::format("{}, term {}", info.primary, info.primary_term.value),
                    info.damage.empty() ? databases : "cannot be read: " + info.damage});
  }
  return ReportTable(rows);
}

std::string PositionJson(const DatabasePosition& position) {
  return Dump({{"name", position.name},
               {"txid", Hex(position.txid.value)},
               {"digest", Hex(position.digest)},
               {"pages", position.page_count},
               {"page_size", position.page_size}},
              -1);
}

std::string PositionText(const std::string& what, const DatabasePosition& position) {
  return fmt::format("{} {}: TXID {}, digest {}, {} pages ({})\n", position.name, what,
                     Hex(position.txid.value), Hex(position.digest), position.page_count,
                     BytesText(std::uint64_t{position.page_count} * position.page_size));
}

std::string ChangeSetJson(const ChangeSetSummary& summary) {
  return Dump({{"index", summary.index.value},
               {"term", summary.term.value},
               {"txid", Hex(summary.txid.value)},
               {"kind", summary.kind},
               {"timestamp_ms", summary.timestamp_ms},
               {"pages", summary.pages},
               {"bytes", summary.bytes},
               {"page_count", summary.page_count},
               {"digest", Hex(summary.digest)}},
              -1);
}

std::string ChangeSetHeading() {
  return fmt::format("{:<24} {:>10} {:>5} {:<16} {:<6} {:>8} {:>10} {:<16}\n", "TIME (UTC)",
                     "INDEX", "TERM", "TXID", "KIND", "PAGES", "BYTES", "DIGEST AFTER");
}

std::string ChangeSetText(const ChangeSetSummary& summary) {
  const std::string time = UtcTime(summary.timestamp_ms);
  return fmt::format("{:<24} {:>10} {:>5} {} {:<6} {:>8} {:>10} {}\n", time, summary.index.value,
                     summary.term.value, Hex(summary.txid.value), summary.kind, summary.pages,
                     summary.bytes, Hex(summary.digest));
}

}  // namespace echofs::cmd
