// Takes entries that are not the cluster's history out of this node's log (design R5, D4).
//
// The durable steps, in this order:
//
//   1. The entries go into the orphan store, if it does not have them.
//   2. The positions of all databases that they touch are forgotten (ApplyTarget::ForgetPositions).
//   3. The log is cut, or starts anew.
//   4. Each database is taken back to the cluster's history by pages of the primary, or by a whole copy
//      (apply_queue), and its position is known again.
//
// Why each crash point is right: after 1 the log is as it was, the start finds nothing to do, and the next contact
// with the primary begins again; step 1 then finds the entries in the store. After 2 too, but the databases count
// as not there, and will be copied as a whole. After 3 the entries are in the store alone, and the databases are
// copied. Step 2 must be on disk before 3: a position is an index of the log, and recovery believes what the log
// says about the entry there; after the cut another entry can stand at the same index. Within 4, the files are
// changed before the position is written; in between they count as not there.
//
// Called while nothing is applied and nothing else is appended.
#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "replication/apply_target.h"
#include "replication/change_log.h"
#include "replication/log_match.h"
#include "replication/orphan_store.h"
#include "replication/page_set.h"

namespace echofs {

// How one database gets from its last orphan back to the cluster's history.
struct RewindPlan {
  LogIndex after;               // both histories have the database's state after this entry
  PageSet pages;                // written by its entries after that
  std::uint32_t page_size = 0;  // of all those
  PageNumber page_count_min =
      0;               // the smallest size on the way: pages beyond it are not the same any more
  bool whole = false;  // only a whole copy will do
};
using RewindPlans = std::map<std::string, RewindPlan>;  // by database

// What became of the log.
struct LogCut {
  bool started_anew = false;  // else entries were cut off, and these are the plans
  LogIndex after;             // the last entry that stayed
  RewindPlans plans;
};

struct RewindContext {
  ChangeLog* log;  // none owned
  ApplyTarget* target;
  OrphanStore* orphans;
  std::string primary;  // node id of the primary
  Term primary_term;
};

// Cuts the log after `common`, which it reaches back to.
absl::StatusOr<LogCut> RewindLog(const RewindContext& context, const CommonPoint& common);

// Starts the log anew after `base`; `terms` are those of the primary's history.
absl::StatusOr<LogCut> RestartLog(const RewindContext& context, const CommonPoint& common,
                                  const LogState& base, const TermHistory& terms);

// The plans for taking back all entries of the log after `after`. Reads them.
absl::StatusOr<RewindPlans> PlanRewind(const ChangeLog& log, LogIndex after);

// One plan in the place of two, for a database that `first` was not carried out for before the log was cut a
// second time. `second` is null when no entry of the database was cut that time; `after` is where it was.
RewindPlan MergePlans(const RewindPlan& first, const RewindPlan* second, LogIndex after);

// The pages to fetch for a plan, of a database that stood at `common` at the plan's index. Nothing when a whole
// copy is less work.
std::optional<PageSet> PagesToFetch(const RewindPlan& plan, const DatabasePosition& common);

}  // namespace echofs
