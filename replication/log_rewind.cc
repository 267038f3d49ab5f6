#include "replication/log_rewind.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "replication/failpoint.h"
#include "replication/limits.h"
#include "replication/ltx.h"
#include "replication/status_macros.h"

namespace echofs {
namespace {

absl::Status AddEntry(const LogEntry& entry, LogReader& reader, RewindPlan& plan) {
  if (entry.kind != EntryKind::kChangeSet ||
      (plan.page_size != 0 && plan.page_size != entry.page_size) ||
      plan.pages.ranges().size() > kFetchRangesMax) {
    plan.whole = true;
    return absl::OkStatus();
  }
  plan.page_count_min =
      plan.page_size == 0 ? entry.page_count : std::min(plan.page_count_min, entry.page_count);
  plan.page_size = entry.page_size;
  const std::unique_ptr<ByteSource> payload = reader.Payload();
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<LtxDecoder> decoder,
                          LtxDecoder::Start(payload.get()));
  while (true) {
    ECHOFS_ASSIGN_OR_RETURN(const std::optional<LtxDecoder::Page> page, decoder->Next());
    if (!page) return absl::OkStatus();
    plan.pages.Add(page->number);
  }
}

// Databases of this node whose files are not at the position that the new base has for them, or not known to be.
absl::StatusOr<std::vector<std::string>> NotAtBase(const RewindContext& context,
                                                   const LogState& base) {
  std::map<std::string, const DatabasePosition*> positions;
  for (const DatabasePosition& position : base.databases) positions[position.name] = &position;
  std::set<std::string> all;
  for (const std::string& name : context.target->LocalDatabases()) all.insert(name);
  for (const DatabasePosition& position : context.log->Positions()) all.insert(position.name);
  std::vector<std::string> names;
  for (const std::string& name : all) {
    const absl::StatusOr<DatabasePosition> local = context.target->AppliedPosition(name);
    if (!absl::IsNotFound(local.status())) ECHOFS_RETURN_IF_ERROR(local.status());
    const auto found = positions.find(name);
    const bool same = local.ok() && found != positions.end() &&
                      found->second->index == local->index && found->second->txid == local->txid &&
                      found->second->digest == local->digest;
    if (!same) names.push_back(name);
  }
  return names;
}

}  // namespace

absl::StatusOr<RewindPlans> PlanRewind(const ChangeLog& log, LogIndex after) {
  RewindPlans plans;
  const LogIndex last = log.last_index();
  const std::unique_ptr<LogReader> reader = log.Read(after.Next());
  for (LogIndex index = after.Next(); index <= last; index = index.Next()) {
    ECHOFS_ASSIGN_OR_RETURN(const std::optional<LogEntry> entry, reader->Next());
    if (!entry) return absl::AbortedError("the log ends early");
    if (entry->kind == EntryKind::kOpenTerm) continue;
    RewindPlan& plan = plans[entry->database];
    plan.after = after;
    if (plan.whole) continue;
    if (absl::Status status = AddEntry(*entry, *reader, plan); !status.ok()) {
      // It is kept as it is; the pages then come all.
      spdlog::warn("entry {} of {} cannot be read: {}", entry->index.value, entry->database,
                   std::string(status.message()));
      plan.whole = true;
    }
  }
  return plans;
}

absl::StatusOr<LogCut> RewindLog(const RewindContext& context, const CommonPoint& common) {
  ECHOFS_RETURN_IF_ERROR(
      context.orphans->Keep(*context.log, common, context.primary, context.primary_term));
  Failpoint("rewind.keep.after");
  LogCut cut;
  cut.after = common.index;
  ECHOFS_ASSIGN_OR_RETURN(cut.plans, PlanRewind(*context.log, common.index));
  std::vector<std::string> names;
  for (const auto& [name, plan] : cut.plans) names.push_back(name);
  ECHOFS_RETURN_IF_ERROR(context.target->ForgetPositions(names));
  Failpoint("rewind.forget.after");
  ECHOFS_RETURN_IF_ERROR(context.log->TruncateAfter(common.index));
  return cut;
}

absl::StatusOr<LogCut> RestartLog(const RewindContext& context, const CommonPoint& common,
                                  const LogState& base, const TermHistory& terms) {
  ECHOFS_RETURN_IF_ERROR(
      context.orphans->Keep(*context.log, common, context.primary, context.primary_term));
  ECHOFS_ASSIGN_OR_RETURN(const std::vector<std::string> names, NotAtBase(context, base));
  ECHOFS_RETURN_IF_ERROR(context.target->ForgetPositions(names));
  ECHOFS_RETURN_IF_ERROR(context.log->Reset(base.index, base.term, base.databases, terms));
  LogCut cut;
  cut.started_anew = true;
  cut.after = base.index;
  return cut;
}

RewindPlan MergePlans(const RewindPlan& first, const RewindPlan* second, LogIndex after) {
  RewindPlan merged = first;
  // Entries that came after the first cut were not applied: those of them that went do not matter.
  if (after >= first.after) return merged;
  merged.after = after;
  if (second == nullptr) return merged;
  merged.whole |= second->whole || second->page_size != first.page_size;
  merged.pages.Add(second->pages);
  merged.page_count_min = std::min(first.page_count_min, second->page_count_min);
  return merged;
}

std::optional<PageSet> PagesToFetch(const RewindPlan& plan, const DatabasePosition& common) {
  if (plan.whole || plan.page_size != common.page_size) return std::nullopt;
  PageSet pages = plan.pages;
  pages.Add(std::min(plan.page_count_min, common.page_count) + 1, common.page_count);
  // What lies beyond comes with the entries by which the database grows.
  pages.CutAfter(common.page_count);
  if (pages.size() > common.page_count / kRewindPartMax) return std::nullopt;
  if (pages.ranges().size() > kFetchRangesMax) return std::nullopt;
  return pages;
}

}  // namespace echofs
