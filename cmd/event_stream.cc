#include "cmd/event_stream.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "absl/time/clock.h"
#include "cmd/change_set_summary.h"
#include "replication/status_macros.h"

namespace echofs::cmd {
namespace {

using Json = nlohmann::ordered_json;

// One piece of the stream: no more entries are added beyond this.
constexpr std::size_t kPieceSize = 32 << 10;  // bytes
constexpr absl::Duration kPieceTime = absl::Milliseconds(200);
constexpr absl::Duration kRoleInterval = absl::Milliseconds(100);
constexpr absl::Duration kHeartbeat = absl::Seconds(5);

std::string Hex(std::uint64_t value) { return fmt::format("{:016x}", value); }

// A file's name need not be UTF-8.
std::string Line(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Json Describe(const std::string& database, const ChangeSetSummary& summary) {
  return {{"type", "transaction"},        {"index", summary.index.value},
          {"term", summary.term.value},   {"timestamp_ms", summary.timestamp_ms},
          {"database", database},         {"txid", Hex(summary.txid.value)},
          {"kind", summary.kind},         {"pages", summary.pages},
          {"bytes", summary.bytes},       {"page_count", summary.page_count},
          {"digest", Hex(summary.digest)}};
}

absl::StatusOr<std::string> LineOf(const LogEntry& entry, LogReader& reader,
                                   const std::atomic<bool>* cancel) {
  if (entry.kind == EntryKind::kOpenTerm) {
    return Line({{"type", "term"},
                 {"index", entry.index.value},
                 {"term", entry.term.value},
                 {"timestamp_ms", entry.timestamp_ms}});
  }
  ECHOFS_ASSIGN_OR_RETURN(const ChangeSetSummary summary, Summarize(entry, reader, cancel));
  return Line(Describe(entry.database, summary));
}

}  // namespace

EventStream::EventStream(NodeObserver* node, const ChangeLog* log, LogIndex from,
                         const std::atomic<bool>* stopping)
    : node_(node), stopping_(stopping), reader_(log->Read(from)), next_(from) {}

std::optional<std::string> EventStream::Next() {
  if (ended_) return std::nullopt;
  std::string lines;
  const absl::Time now = absl::Now();
  AddRole(now, &lines);
  AddEntries(now, &lines);
  if (!ended_ && *stopping_) AddEnd("this node is stopping", &lines);
  if (lines.empty() && now >= said_at_ + kHeartbeat) {
    lines = Line({{"type", "heartbeat"},
                  {"next_index", next_.value},
                  {"timestamp_ms", absl::ToUnixMillis(now)}});
  }
  if (!lines.empty()) said_at_ = now;
  return lines;
}

void EventStream::AddRole(absl::Time now, std::string* lines) {
  if (now < role_at_ + kRoleInterval) return;
  role_at_ = now;
  const RoleObservation role = node_->ObserveRole();
  if (role_ == role) return;
  role_ = role;
  *lines += Line({{"type", "role"},
                  {"role", role.role},
                  {"term", role.term.value},
                  {"primary", role.primary},
                  {"timestamp_ms", absl::ToUnixMillis(now)}});
}

void EventStream::AddEntries(absl::Time now, std::string* lines) {
  while (lines->size() < kPieceSize && absl::Now() < now + kPieceTime) {
    const absl::StatusOr<std::optional<LogEntry>> entry = reader_->Next();
    if (entry.ok() && !entry->has_value()) return;
    absl::StatusOr<std::string> line =
        entry.ok() ? LineOf(**entry, *reader_, stopping_) : entry.status();
    if (!line.ok()) return AddEnd(std::string(line.status().message()), lines);
    *lines += *line;
    next_ = (*entry)->index.Next();
  }
}

void EventStream::AddEnd(const std::string& reason, std::string* lines) {
  *lines += Line({{"type", "end"}, {"reason", reason}, {"next_index", next_.value}});
  ended_ = true;
}

}  // namespace echofs::cmd
