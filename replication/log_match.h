// Where the histories of two logs part (design L3, R5): plain functions over what a log knows of its terms.
//
// Only one node is primary in a term, and it numbers its entries one by one. So two logs that have an entry of
// the same term at the same index are the same up to it, and the highest such index is their common point:
// whatever one of them has after it, the other lacks. For that the first index of each term is enough. A log
// keeps it for longer than its entries, or a replica that is far behind could not be told from one that
// diverged.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "replication/ids.h"

namespace echofs {

// Terms that a log remembers, in memory, on disk and on the wire: the newest ones.
inline constexpr std::size_t kTermHistoryMax = 1000;

// A term, and the index of its first entry.
struct TermStart {
  Term term;
  LogIndex first;

  friend bool operator==(const TermStart&, const TermStart&) = default;
};

// The terms of a log up to its end. A value; not thread-safe.
//
// Ascending in both members. What is before the oldest start is not known; if that has an index above 1, its
// term may have begun earlier than it says.
class TermHistory {
 public:
  TermHistory() = default;
  // Nothing when `starts` are not ascending, begin at 0, or are more than kTermHistoryMax.
  static std::optional<TermHistory> FromStarts(std::vector<TermStart> starts);
  // Of a log that begins after an entry (base, term) and knows nothing of what was before.
  static TermHistory FromBase(LogIndex base, Term term);

  // The log got an entry at `index`, its next one.
  void Add(LogIndex index, Term term);
  // The log lost all entries after `index`.
  void CutAfter(LogIndex index);

  // Term of the entry at `index`, which the log has or had; zero for index 0; nothing when it is not known.
  std::optional<Term> TermAt(LogIndex index) const;
  // First index of the term of the entry at `index`, which is known.
  LogIndex StartOf(LogIndex index) const;
  // Whether StartOf(index) is surely where the term began.
  bool StartIsExact(LogIndex index) const;

  const std::vector<TermStart>& starts() const { return starts_; }

  friend bool operator==(const TermHistory&, const TermHistory&) = default;

 private:
  // The last start that is not after `index`; the end when there is none.
  std::vector<TermStart>::const_iterator Find(LogIndex index) const;

  std::vector<TermStart> starts_;
};

struct CommonPoint {
  // False when a history does not reach back far enough: the common point is `index` or before it.
  bool known = true;
  LogIndex index;  // 0 when the logs have nothing in common
  Term term;       // of the entry there, when known
};

// The highest index at which both logs have the same entry. The ends are the logs' last indexes.
CommonPoint FindCommonPoint(const TermHistory& a, LogIndex a_end, const TermHistory& b,
                            LogIndex b_end);

}  // namespace echofs
