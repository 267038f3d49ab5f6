// Watches a simulated run and says what is wrong, at the step at which it happens. It knows everything and tells
// nobody; the nodes do not know it. What it checks (design sections 5, 7 and 8):
//
//   J1  At any moment at most one node can commit (R2).
//   J2  A term is given once and opened by one node; terms in a log never fall, and no log follows a history that ends in
//       a lower one (R1).
//   J3  An entry at one index and term is the same in every log, and what is before it too (L3).
//   J4  Each entry continues its database: TXID + 1, digest before = digest after of the one before (L2).
//   J5  What was synced is there after a crash.
//   J6  What was acknowledged with min-sync-replicas N is on the disks of N other nodes at that moment, and in the log of
//       everybody who leads a later term; no log that has it drops it (D1, D4).
//   J7  A handoff loses nothing: the target has all that the giver had (R4).
//   J8  An entry leaves a log only if the history has it, or it is kept on this node's disk as an orphan (R5, D4).
//   J9  Nobody asks for a lease that is free or its own from before, unless a person wants it so, before those of whom it knows that they are ahead and
//       could be primary, but after two TTLs; nobody asks while its own log may grow (R3).
//   J10 In the end: all logs, databases and digests are equal, the accounts have their sum, every number of which a client was
//       told is there, and the orphans are still on the disks.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "replication/change_log.h"
#include "replication/lease.h"
#include "tests/simulation/world.h"

namespace echofs::sim {

class Process;

class Judge {
 public:
  explicit Judge(World* world);

  // ---- What happens ----
  void AfterStep();
  void OnCommit(int node);
  // `before`: the record until then.
  void OnTermGiven(const LeaseRecord& before, const LeaseRecord& now, bool transfer);
  void OnTookOver(Process& process, Term term);
  // The log has got an entry; `by_itself`: from no other node.
  void OnAppended(int node, const LogEntry& entry, bool by_itself);
  void OnSynced(int node, const ChangeLog& log);
  // The log was recovered.
  void OnLogOpened(Process& process);
  // The log will lose its entries after `kept` (none: all of them); the history that it takes part in from now on ends
  // at `history`. OnCutDone comes when that is done, or does not when there was an error.
  void OnCutBegins(Process& process, LogPosition kept, LogPosition history);
  void OnCutDone(Process& process);
  // After each event of a node.
  void OnMachine(Process& process);
  // It asks for the lease.
  void OnAcquire(Process& process);
  void OnPromotion(int node);
  void OnForcedPromotion() { acknowledged_may_go_ = true; }
  // A client was told that its commit, which waited for replicas, is safe.
  void OnTold(LogPosition position, std::uint64_t number);
  std::uint64_t NewNumber() { return ++last_number_; }

  // ---- The end ----
  // Why the nodes are not equal yet; empty when they are.
  std::string WhyNotEqual() const;
  // Everything of J10.
  void CheckEnd();

 private:
  struct Tenure {        // a term as the logs have it
    LogPosition before;  // the entry before its first one
    int owner = -1;
  };
  struct Cut {            // that has begun
    LogPosition end;      // of the log before it
    LogPosition durable;  // of that, what was on disk
    LogIndex first;       // entry that the log could read
    LogPosition history;
  };
  struct EntryInfo {
    std::uint64_t hash = 0;
    EntryKind kind = EntryKind::kOpenTerm;
  };

  void ForgetRecovered(int node, LogPosition end);
  static std::uint64_t Key(LogPosition position);
  // Whether the history that ends at `end` has the entry at `position`.
  bool InHistory(LogPosition position, LogPosition end) const;
  // The entry at `index` of the history that ends at `end`.
  LogPosition At(LogIndex index, LogPosition end) const;
  // Of the entries up to `end`, which a cut may have taken away, all must be somewhere.
  void CheckCut(Process& process, const Cut& cut, LogPosition end);
  // What the node keeps as orphans.
  absl::StatusOr<std::set<LogPosition>> Kept(Process& process) const;
  void OnAcknowledged(int node, LogPosition position);
  void CheckContent(const SimNode& node, const ChangeLog& log);
  void CheckOrphans();
  bool acknowledged_counts() const;

  World* const world_;
  std::map<std::uint64_t, Tenure> tenures_;  // by term
  std::unordered_map<std::uint64_t, EntryInfo> entries_;
  std::vector<LogPosition> ends_;                     // of the nodes' logs
  std::vector<LogPosition> durable_;                  // of them, what is on disk
  std::vector<std::set<LogPosition>> kept_;           // orphans, by node
  std::map<int, Cut> cuts_;                           // that have begun, by node
  std::map<std::uint64_t, LogPosition> handed_over_;  // by the term given: what the giver had
  LogPosition acknowledged_;                          // the furthest
  std::map<int, LogPosition> acknowledged_by_;        // what each node's machine said last
  bool acknowledged_may_go_ = false;
  // By node: since when it knows that the lease is free, and of which term; until when a person wants it to stand.
  struct Vacancy {
    Term term;
    absl::Time since = absl::InfinitePast();
    absl::Time promoted_until = absl::InfinitePast();
  };
  std::map<int, Vacancy> vacancies_;
  std::vector<std::uint64_t> told_;
  std::uint64_t last_number_ = 0;
};

}  // namespace echofs::sim
