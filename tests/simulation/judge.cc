#include "tests/simulation/judge.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "replication/status_macros.h"
#include "tests/simulation/process.h"
#include "tests/simulation/sqlite_client.h"

namespace echofs::sim {
namespace {

std::string Show(LogPosition position) {
  return fmt::format("entry {} of term {}", position.index.value, position.term.value);
}

}  // namespace

Judge::Judge(World* world)
    : world_(world),
      ends_(world->options.nodes),
      durable_(world->options.nodes),
      kept_(world->options.nodes) {}

std::uint64_t Judge::Key(LogPosition position) {
  return position.term.value << 40 | position.index.value;
}

LogPosition Judge::At(LogIndex index, LogPosition end) const {
  while (index <= end.index && end.index.value > 0) {
    const auto tenure = tenures_.find(end.term.value);
    if (tenure == tenures_.end()) return {};
    if (index > tenure->second.before.index) return {end.term, index};
    end = tenure->second.before;
  }
  return {};
}

bool Judge::InHistory(LogPosition position, LogPosition end) const {
  return position.index.value == 0 || At(position.index, end) == position;
}

// ---- J1, J2 ----

void Judge::AfterStep() {
  int able = 0;
  std::string who;
  for (const auto& node : world_->nodes) {
    // One that is paused could go on at any moment, also in the middle of a commit.
    if (node->process() == nullptr || !node->process()->CanCommit()) continue;
    ++able;
    who += " " + node->id();
  }
  if (able > 1) world_->Fail("J1: more than one node can commit:" + who);
}

void Judge::OnCommit(int node) {
  for (const auto& other : world_->nodes) {
    if (other->number() != node && other->process() != nullptr && other->process()->CanCommit()) {
      world_->Fail(fmt::format("J1: n{} commits while {} can", node, other->id()));
    }
  }
}

void Judge::OnTermGiven(const LeaseRecord& before, const LeaseRecord& now, bool transfer) {
  if (now.term != NextLeaseTerm(before.term)) {
    world_->Fail("J2: the lease's term did not grow to the next odd one");
  }
  // Who was given the lease acquires it, in a later term.
  const auto given = handed_over_.find(before.term.value);
  if (given != handed_over_.end() && before.primary_id == now.primary_id) {
    handed_over_[now.term.value] = given->second;
  }
  if (!transfer) return;
  ++world_->counts.handoffs;
  const int giver = SimNode::NumberOf(before.primary_address);
  if (world_->nodes[giver]->process() != nullptr) handed_over_[now.term.value] = ends_[giver];
}

void Judge::OnTookOver(Process& process, Term term) {
  const int node = process.node().number();
  const LogPosition end = ends_[node];
  if (acknowledged_counts() && acknowledged_.term < term && !InHistory(acknowledged_, end)) {
    world_->Fail(fmt::format("J6: n{} leads term {} without {}, which was acknowledged", node,
                             term.value, Show(acknowledged_)));
  }
  const auto given = handed_over_.find(term.value);
  if (given != handed_over_.end() && !InHistory(given->second, end)) {
    world_->Fail(
        fmt::format("J7: n{} was given term {} without {}", node, term.value, Show(given->second)));
  }
}

// ---- J9 ----

void Judge::OnPromotion(int node) {
  vacancies_[node].promoted_until = world_->nodes[node]->Now() + world_->options.ttl;
}

void Judge::OnAcquire(Process& process) {
  if (process.receiver().following()) {
    world_->Fail(
        fmt::format("J9: {} asks for the lease while its log may grow", process.node().id()));
  }
  const LeaseState& lease = process.machine().lease();
  const Vacancy& vacancy = vacancies_[process.node().number()];
  const bool waited = process.now() >= vacancy.since + 2 * world_->options.ttl;
  if (waited || process.now() < vacancy.promoted_until) return;
  const std::vector<std::string>& in_sync = lease.record.in_sync;
  for (const NodeAnnouncement& other : lease.nodes) {
    if (other.node_id == process.node().id()) continue;
    const bool eligible = world_->options.min_sync_replicas == 0 || in_sync.empty() ||
                          std::find(in_sync.begin(), in_sync.end(), other.node_id) != in_sync.end();
    if (other.candidate && eligible && other.position > process.position()) {
      world_->Fail(fmt::format("J9: {} does not wait for {}, which has {}", process.node().id(),
                               other.node_id, Show(other.position)));
    }
  }
}

// ---- J3, J5 ----

void Judge::OnAppended(int node, const LogEntry& entry, bool by_itself) {
  const LogPosition position{entry.term, entry.index};
  const LogPosition before = ends_[node];
  ends_[node] = position;
  world_->Mix(Key(position) * 8 + node);
  if (entry.index != before.index.Next() || entry.term < before.term) {
    return world_->Fail(fmt::format("J2: n{} has {} after {}", node, Show(position), Show(before)));
  }
  const EntryInfo info{std::hash<std::string>()(EncodeEntryHeader(entry)), entry.kind};
  const auto [known, is_new] = entries_.try_emplace(Key(position), info);
  if (by_itself != is_new || known->second.hash != info.hash) {
    return world_->Fail(fmt::format("J3: n{} has another {} than there was", node, Show(position)));
  }
  const auto [tenure, opened] = tenures_.try_emplace(entry.term.value, Tenure{before, node});
  const bool recovered = LeaseTermOf(entry.term) != entry.term;
  if (opened && !recovered && entry.kind != EntryKind::kOpenTerm) {
    world_->Fail(fmt::format("J2: term {} begins with another entry", entry.term.value));
  }
  if (by_itself && tenure->second.owner != node) {
    world_->Fail(fmt::format("J2: n{} and n{} both lead term {}", node, tenure->second.owner,
                             entry.term.value));
  }
  const LogPosition expected = entry.index == tenure->second.before.index.Next()
                                   ? tenure->second.before
                                   : LogPosition{entry.term, before.index};
  if (before != expected) {
    world_->Fail(fmt::format("J3: n{} has {} before {}, others have {}", node, Show(before),
                             Show(position), Show(expected)));
  }
}

void Judge::OnSynced(int node, const ChangeLog& log) {
  if (log.synced_index() > durable_[node].index) {
    durable_[node] = At(log.synced_index(), ends_[node]);
  }
}

void Judge::OnLogOpened(Process& process) {
  const int node = process.node().number();
  const LogPosition end = process.log_end();
  if (!InHistory(durable_[node], end)) {
    world_->Fail(fmt::format("J5: n{} has lost {}, which was on its disk; it ends at {}", node,
                             Show(durable_[node]), Show(end)));
  }
  // A term's first entry that was not on disk yet: nobody else was sent it, so the term may be opened again.
  const LogPosition lost = ends_[node];
  if (cuts_.count(node) == 0 && lost.index > end.index &&
      entries_[Key(lost)].kind == EntryKind::kOpenTerm && tenures_[lost.term.value].owner == node &&
      lost.term > end.term) {
    entries_.erase(Key(lost));
    tenures_.erase(lost.term.value);
  }
  if (cuts_.count(node) == 0) ForgetRecovered(node, end);
  ends_[node] = durable_[node] = end;
  if (const auto cut = cuts_.find(node); cut != cuts_.end()) {
    CheckCut(process, cut->second, cut->second.durable);
    cuts_.erase(node);
  }
}

// What was recovered and went with the power once more: nobody else was sent it (ids.h).
void Judge::ForgetRecovered(int node, LogPosition end) {
  const LogPosition lost = ends_[node];
  const auto tenure = tenures_.find(lost.term.value);
  if (LeaseTermOf(lost.term) == lost.term || tenure == tenures_.end() ||
      tenure->second.owner != node) {
    return;
  }
  const LogIndex before = tenure->second.before.index;
  for (LogIndex i = lost.index; i > std::max(end.index, before); i = i.Previous()) {
    entries_.erase(Key({lost.term, i}));
  }
  if (end.index <= before) tenures_.erase(tenure);
}

// ---- J8 ----

void Judge::OnCutBegins(Process& process, LogPosition kept, LogPosition history) {
  const int node = process.node().number();
  cuts_[node] = {ends_[node], durable_[node], process.log().first_index(), history};
  if (history.term < ends_[node].term) {
    world_->Fail(fmt::format("J2: n{} has {} and follows a primary that ends at {}", node,
                             Show(ends_[node]), Show(history)));
  }
  if (acknowledged_counts() && InHistory(acknowledged_, ends_[node]) &&
      !InHistory(acknowledged_, history)) {
    world_->Fail(
        fmt::format("J6: n{} drops {}, which was acknowledged", node, Show(acknowledged_)));
  }
  if (durable_[node].index > kept.index) durable_[node] = kept;
}

void Judge::OnCutDone(Process& process) {
  const int node = process.node().number();
  const Cut cut = cuts_[node];
  cuts_.erase(node);
  ends_[node] = durable_[node] = process.log_end();
  CheckCut(process, cut, cut.end);
}

void Judge::CheckCut(Process& process, const Cut& cut, LogPosition end) {
  const int node = process.node().number();
  const absl::StatusOr<std::set<LogPosition>> kept = Kept(process);
  if (!kept.ok()) return;  // no power
  for (LogIndex i = end.index; i.value > 0 && i >= cut.first; i = i.Previous()) {
    const LogPosition position = At(i, end);
    if (InHistory(position, cut.history) || InHistory(position, ends_[node])) break;
    if (entries_[Key(position)].kind == EntryKind::kOpenTerm) continue;
    if (kept->count(position) == 0) {
      return world_->Fail(
          fmt::format("J8: n{} drops {}, which is kept nowhere", node, Show(position)));
    }
    if (kept_[node].insert(position).second) ++world_->counts.orphans;
  }
}

absl::StatusOr<std::set<LogPosition>> Judge::Kept(Process& process) const {
  std::set<LogPosition> kept;
  ECHOFS_ASSIGN_OR_RETURN(const std::vector<OrphanInfo> files, process.orphans().List());
  for (const OrphanInfo& file : files) {
    if (!file.damage.empty()) return absl::DataLossError(file.damage);
    ECHOFS_RETURN_IF_ERROR(process.orphans().Read(file.id, [&](const LogEntry& entry, ByteSource&) {
      kept.insert({entry.term, entry.index});
      return absl::OkStatus();
    }));
  }
  return kept;
}

// ---- J6 ----

// Without replicas that must have it, or when a person gave it up, nothing was promised.
bool Judge::acknowledged_counts() const {
  return world_->options.min_sync_replicas > 0 && !acknowledged_may_go_;
}

void Judge::OnMachine(Process& process) {
  OnSynced(process.node().number(), process.log());
  const RoleMachine& machine = process.machine();
  Vacancy& vacancy = vacancies_[process.node().number()];
  // A lease of its own, from before, is as good as free to it.
  const LeaseRecord& record = machine.lease().record;
  if ((machine.lease().held && record.primary_id != process.node().id()) ||
      record.term != vacancy.term) {
    vacancy.term = record.term;
    vacancy.since = process.now();
  }
  if (!machine.leading() || !acknowledged_counts()) return;
  const int node = process.node().number();
  const LogIndex index = machine.acknowledged_index();
  if (index > ends_[node].index) return world_->Fail("J6: more is acknowledged than there is");
  const LogPosition position = At(index, ends_[node]);
  if (acknowledged_by_[node] == position) return;
  acknowledged_by_[node] = position;
  OnAcknowledged(node, position);
}

void Judge::OnAcknowledged(int node, LogPosition position) {
  if (position.index.value == 0) return;
  int others = 0;
  for (int i = 0; i < world_->options.nodes; ++i) {
    if (i != node && InHistory(position, durable_[i])) ++others;
  }
  if (!InHistory(position, durable_[node]) || others < world_->options.min_sync_replicas) {
    world_->Fail(fmt::format("J6: n{} counts {} as acknowledged, which is on {} other disks", node,
                             Show(position), others));
  }
  const auto& [newest, tenure] = *tenures_.rbegin();
  if (newest > position.term.value && !InHistory(position, tenure.before)) {
    world_->Fail(fmt::format("J6: n{} counts {} as acknowledged, which term {} lacks", node,
                             Show(position), newest));
  }
  if (InHistory(acknowledged_, position) && acknowledged_ != position) {
    world_->Trace("n{}: acknowledged {}", node, Show(position));
    acknowledged_ = position;
  }
}

void Judge::OnTold(LogPosition position, std::uint64_t number) {
  if (acknowledged_counts() && !InHistory(position, acknowledged_)) {
    world_->Fail(
        fmt::format("J6: a client was told of {}, which is not acknowledged", Show(position)));
  }
  if (number != 0) told_.push_back(number);
}

// ---- J4, J10 ----

std::string Judge::WhyNotEqual() const {
  const LogPosition end = ends_[0];
  std::uint64_t fingerprint = 0;
  for (const auto& node : world_->nodes) {
    Process* process = node->process();
    if (process == nullptr || node->paused()) return node->id() + " does not run";
    if (ends_[node->number()] != end) {
      return fmt::format("n0 is at {}, {} at {}", Show(end), node->id(),
                         Show(ends_[node->number()]));
    }
    if (durable_[node->number()] != end) return node->id() + " has not synced";
    if (!process->databases().incomplete().empty()) {
      return fmt::format("{} lacks {}", node->id(), *process->databases().incomplete().begin());
    }
    const std::uint64_t own = process->databases().Fingerprint();
    if (node->number() == 0) fingerprint = own;
    if (own != fingerprint) return node->id() + " has other databases than n0";
  }
  return "";
}

void Judge::CheckEnd() {
  for (const auto& node : world_->nodes) {
    const PageDatabases& databases = node->process()->databases();
    if (const absl::Status status = databases.Verify(); !status.ok()) {
      world_->Fail("J10: " + node->id() + ": " + status.ToString());
    }
    CheckContent(*node, node->process()->log());
  }
  PageDatabases& databases = world_->nodes[0]->process()->databases();
  const bool sqlite = world_->options.sqlite;
  if (const absl::Status sound = sqlite ? CheckWithSqlite(databases) : absl::OkStatus();
      !sound.ok()) {
    world_->Fail("J10: " + sound.ToString());
  }
  const std::uint64_t sum = SumOfAccounts(databases, sqlite);
  if (databases.page_count(kBank) > 0 && sum != kAccounts * kFirstBalance) {
    world_->Fail(fmt::format("J10: the accounts have {} in all", sum));
  }
  for (const std::uint64_t number : told_) {
    if (acknowledged_counts() && !HasNumber(databases, number, sqlite)) {
      world_->Fail(fmt::format("J10: number {} was acknowledged and is not there", number));
    }
  }
  CheckOrphans();
}

// Reads the whole log again: every entry continues its database, and its payload is whole.
void Judge::CheckContent(const SimNode& node, const ChangeLog& log) {
  struct Last {
    Txid txid;
    std::uint64_t digest = 0;
  };
  std::map<std::string, Last> databases;
  const std::unique_ptr<LogReader> reader = log.Read(log.first_index());
  for (LogIndex i = log.first_index(); i <= log.last_index(); i = i.Next()) {
    const absl::StatusOr<std::optional<LogEntry>> entry = reader->Next();
    if (!entry.ok() || !entry->has_value()) {
      return world_->Fail(fmt::format("J4: {} cannot read entry {}", node.id(), i.value));
    }
    const LogPosition position{(*entry)->term, (*entry)->index};
    if (position != At(i, ends_[node.number()]) ||
        entries_[Key(position)].hash != std::hash<std::string>()(EncodeEntryHeader(**entry))) {
      world_->Fail(fmt::format("J3: {} has another {}", node.id(), Show(position)));
    }
    if ((*entry)->kind != EntryKind::kChangeSet) continue;
    std::vector<std::uint8_t> payload((*entry)->payload_size);
    const std::unique_ptr<ByteSource> source = reader->Payload();
    if (!ReadExactly(*source, payload).ok()) {
      world_->Fail(fmt::format("J4: {}: {} is damaged", node.id(), Show(position)));
    }
    const auto [last, first_seen] = databases.try_emplace((*entry)->database);
    if (!first_seen && ((*entry)->txid != last->second.txid.Next() ||
                        (*entry)->digest_before != last->second.digest)) {
      world_->Fail(
          fmt::format("J4: {}: {} does not continue its database", node.id(), Show(position)));
    }
    last->second = {(*entry)->txid, (*entry)->digest_after};
  }
}

void Judge::CheckOrphans() {
  for (const auto& node : world_->nodes) {
    const absl::StatusOr<std::set<LogPosition>> kept = Kept(*node->process());
    if (!kept.ok()) return world_->Fail("J10: orphans: " + kept.status().ToString());
    for (const LogPosition& position : kept_[node->number()]) {
      if (kept->count(position) == 0) {
        world_->Fail(fmt::format("J10: {} has lost the orphan {}", node->id(), Show(position)));
      }
    }
  }
}

}  // namespace echofs::sim
