#include "replication/log_match.h"

#include <algorithm>
#include <utility>

#include "replication/status_macros.h"

namespace echofs {

std::optional<TermHistory> TermHistory::FromStarts(std::vector<TermStart> starts) {
  if (starts.size() > kTermHistoryMax) return std::nullopt;
  TermStart last;
  for (const TermStart& start : starts) {
    if (start.term <= last.term || start.first <= last.first) return std::nullopt;
    last = start;
  }
  TermHistory history;
  history.starts_ = std::move(starts);
  return history;
}

TermHistory TermHistory::FromBase(LogIndex base, Term term) {
  TermHistory history;
  if (base.value != 0) history.starts_.push_back({term, base});
  return history;
}

void TermHistory::Add(LogIndex index, Term term) {
  if (!starts_.empty() && starts_.back().term == term) return;
  ECHOFS_CHECK(starts_.empty() || (starts_.back().term < term && starts_.back().first < index));
  if (starts_.size() >= kTermHistoryMax) starts_.erase(starts_.begin());
  starts_.push_back({term, index});
}

void TermHistory::CutAfter(LogIndex index) {
  while (!starts_.empty() && starts_.back().first > index) starts_.pop_back();
}

std::vector<TermStart>::const_iterator TermHistory::Find(LogIndex index) const {
  const auto after =
      std::upper_bound(starts_.begin(), starts_.end(), index,
                       [](LogIndex i, const TermStart& start) { return i < start.first; });
  return after == starts_.begin() ? starts_.end() : std::prev(after);
}

std::optional<Term> TermHistory::TermAt(LogIndex index) const {
  if (index.value == 0) return Term{};
  const auto found = Find(index);
  if (found == starts_.end()) return std::nullopt;
  return found->term;
}

LogIndex TermHistory::StartOf(LogIndex index) const {
  const auto found = Find(index);
  ECHOFS_CHECK(found != starts_.end());
  return found->first;
}

bool TermHistory::StartIsExact(LogIndex index) const {
  const auto found = Find(index);
  return found != starts_.end() && (found != starts_.begin() || found->first == LogIndex{1});
}

CommonPoint FindCommonPoint(const TermHistory& a, LogIndex a_end, const TermHistory& b,
                            LogIndex b_end) {
  LogIndex index = std::min(a_end, b_end);
  while (index.value != 0) {
    const std::optional<Term> in_a = a.TermAt(index);
    const std::optional<Term> in_b = b.TermAt(index);
    if (!in_a || !in_b) return {false, index, {}};
    const LogIndex a_start = a.StartOf(index);
    const LogIndex b_start = b.StartOf(index);
    if (*in_a == *in_b) {
      // A number that two nodes took for their terms, as a static lease allows: different terms all the same.
      const bool different = a_start != b_start && a.StartIsExact(index) && b.StartIsExact(index);
      if (!different) return {true, index, *in_a};
      index = std::min(a_start, b_start).Previous();
    } else {
      // From the start of the higher term on, the other log has only lower ones.
      index = (*in_a > *in_b ? a_start : b_start).Previous();
    }
  }
  return {true, {}, {}};
}

}  // namespace echofs
