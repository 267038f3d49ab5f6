#include "tests/simulation/process.h"

#include <fmt/format.h>

#include <utility>
#include <variant>

#include "tests/simulation/judge.h"

namespace echofs::sim {
namespace {

constexpr char kLogDirectory[] = "/log";
constexpr char kDatabaseDirectory[] = "/databases";
constexpr char kOrphanDirectory[] = "/orphans";
constexpr Moment kMaintenanceInterval = 500 * kMillisecond;
constexpr Moment kShutdownMax = 5 * kSecond;

RoleOptions MachineOptions(const World& world, const SimNode& node) {
  RoleOptions options;
  options.node_id = node.id();
  options.address = node.address();
  options.candidate = world.options.candidates[node.number()];
  options.ttl = world.options.ttl;
  options.min_sync_replicas = world.options.min_sync_replicas;
  options.ack_timeout = world.options.ack_timeout;
  return options;
}

}  // namespace

Process::Process(World* world, SimNode* node)
    : world_(world),
      node_(node),
      lease_calls_(this),
      receiver_(this),
      sender_(this),
      client_(this) {}

Process::~Process() = default;

absl::Status Process::Start() {
  ChangeLogOptions options;
  options.storage = &node_->disk();
  options.segment_size = world_->options.segment_size;
  options.retention_size = world_->options.retention_size;
  options.now = [this] { return now(); };
  absl::StatusOr<std::unique_ptr<ChangeLog>> log = ChangeLog::Open(kLogDirectory, options);
  if (!log.ok()) return log.status();
  log_ = *std::move(log);
  absl::StatusOr<std::unique_ptr<OrphanStore>> orphans =
      OrphanStore::Open(&node_->disk(), kOrphanDirectory);
  if (!orphans.ok()) return orphans.status();
  orphans_ = *std::move(orphans);
  world_->judge->OnLogOpened(*this);
  databases_ = std::make_unique<PageDatabases>(&node_->disk(), kDatabaseDirectory, log_.get());
  if (absl::Status status = databases_->Recover(); !status.ok()) return status;
  if (absl::Status status = RecoverCommits(); !status.ok()) return status;
  machine_ = std::make_unique<RoleMachine>(MachineOptions(*world_, *node_), this);
  return absl::OkStatus();
}

// As DatabaseSet::RecoverPrimary. What is found is not what was lost: it may be in another order, and less.
absl::Status Process::RecoverCommits() {
  if (node_->led == Term{} || world_->options.sqlite) return absl::OkStatus();
  const std::uint64_t found = node_->lost_power() ? world_->random.Below(4) : 0;
  for (std::uint64_t i = 0; i < found; ++i) {
    const absl::StatusOr<LogEntry> entry = client_.Commit(RecoveryTerm(log_->last_term()));
    if (!entry.ok()) return entry.status();
    OnAppended(*entry, true);
    ++world_->counts.recovered;
  }
  if (absl::Status status = log_->Sync(log_->last_index()); !status.ok()) return status;
  world_->judge->OnSynced(node_->number(), *log_);
  node_->led = {};  // from here on it has the role of a replica
  return absl::OkStatus();
}

void Process::Begin() {
  lease_calls_.Start();
  client_.Start();
  After(kMaintenanceInterval, [this] { Maintain(); });
}

void Process::After(Moment delay, std::function<void()> event) {
  node_->After(delay, [event = std::move(event)](Process&) { event(); });
}

bool Process::CanCommit() const { return serving_ && writers_running_ && now() < fence_; }

void Process::OnMessage(Endpoint from, StreamId stream, const Message& message) {
  if (receiver_.OnMessage(stream, message)) return;
  if (sender_.OnMessage(from, stream, message)) return;
  // Nobody knows this stream here: its other end shall not wait.
  if (!std::holds_alternative<Close>(message)) {
    world_->network.Send(stream, node_->number(), from, Close());
  }
}

void Process::OnBroken(StreamId stream) {
  receiver_.OnBroken(stream);
  sender_.OnBroken(stream);
}

// ---- The machine ----

void Process::Handoff(const std::string& target) {
  const absl::Status status = machine_->Handoff(now(), target);
  world_->Trace("{}: handoff to {}: {}", node_->id(), target.empty() ? "any" : target,
                status.ToString());
}

void Process::Promote(bool force) {
  const absl::Status status = machine_->Promote(now(), force);
  if (status.ok()) world_->judge->OnPromotion(node_->number());
  if (force && status.ok()) world_->judge->OnForcedPromotion();
  world_->Trace("{}: promote{}: {}", node_->id(), force ? " by force" : "", status.ToString());
}

void Process::Shutdown() {
  world_->Trace("{}: shuts down", node_->id());
  machine_->Shutdown(now());
  After(kShutdownMax, [this] { ended_ = true; });
}

void Process::Settle() {
  if (tick_ || now() >= tick_at_) {
    tick_ = false;
    tick_at_ = absl::InfiniteFuture();
    machine_->Tick(now());
  }
  fence_ = machine_->valid_until();
  for (RoleAction& action : machine_->TakeActions()) Carry(std::move(action));
  world_->judge->OnMachine(*this);
  ArrangeTick();
  NextStep();
  sender_.Pump();
  client_.Settle();
}

void Process::ArrangeTick() {
  const absl::Time next = machine_->NextTick(now());
  if (next <= now()) return world_->Fail("the machine's next tick is not in the future");
  if (next >= tick_at_) return;
  tick_at_ = next;
  node_->AtTime(next, [](Process&) {});  // Settle ticks
}

void Process::Carry(RoleAction action) {
  if (const LeaseCall* call = std::get_if<LeaseCall>(&action)) {
    lease_calls_.Make(*call);
  } else if (const HandoffEnded* handoff = std::get_if<HandoffEnded>(&action)) {
    world_->Trace("{}: handoff ended: {}", node_->id(), handoff->status.ToString());
  } else if (std::holds_alternative<Stopped>(action)) {
    // The calls that say good-bye, and the end of what runs.
    After(world_->random.Between(kMillisecond, 100 * kMillisecond), [this] {
      const absl::Status status = log_->Sync(log_->last_index());
      if (status.ok()) (void)databases_->SyncAll();
      ended_ = true;
    });
  } else {
    steps_.push_back(std::move(action));
  }
}

void Process::NextStep() {
  while (!step_running_ && !steps_.empty()) {
    const RoleAction action = std::move(steps_.front());
    steps_.pop_front();
    step_running_ = true;
    RunStep(action);
  }
}

void Process::EndStep() { step_running_ = false; }

// Each ends with EndStep, now or in a later event.
void Process::RunStep(const RoleAction& action) {
  if (const echofs::Follow* follow = std::get_if<echofs::Follow>(&action)) {
    world_->Trace("{}: follows {} of term {}", node_->id(), follow->primary_id, follow->term.value);
    SawTerm(follow->term);
    receiver_.Follow(SimNode::NumberOf(follow->address));
    EndStep();
  } else if (std::holds_alternative<StopFollowing>(action)) {
    After(world_->random.Between(0, 20 * kMillisecond), [this] {
      receiver_.Stop();
      EndStep();
      machine_->OnStoppedFollowing(now());
    });
  } else if (const echofs::TakeOver* take_over = std::get_if<echofs::TakeOver>(&action)) {
    After(world_->random.Between(0, 10 * kMillisecond),
          [this, term = take_over->term] { RunTakeOver(term); });
  } else if (const echofs::StopWriters* stop = std::get_if<echofs::StopWriters>(&action)) {
    RunStopWriters(stop->deadline);
  } else if (std::holds_alternative<ResumeWriters>(action)) {
    world_->Trace("{}: writers go on", node_->id());
    writers_running_ = true;
    EndStep();
  } else {
    RunStepDown();
  }
}

void Process::RunTakeOver(Term term) {
  world_->Trace("{}: takes over term {}", node_->id(), term.value);
  SawTerm(term);
  absl::Status status = databases_->BecomePrimary(term);
  if (!status.ok()) return FinishTakeOver(term, status);
  LogEntry open;
  open.kind = EntryKind::kOpenTerm;
  open.term = term;
  open.timestamp_ms = absl::ToUnixMillis(now());
  const absl::StatusOr<LogIndex> index = log_->Append(open, ByteView());
  if (!index.ok()) return FinishTakeOver(term, index.status());
  open.index = *index;
  OnAppended(open, true);
  After(world_->random.Between(0, node_->disk_delay_max), [this, term, index = *index] {
    const absl::Status synced = log_->Sync(index);
    if (synced.ok()) world_->judge->OnSynced(node_->number(), *log_);
    FinishTakeOver(term, synced);
  });
}

void Process::FinishTakeOver(Term term, const absl::Status& status) {
  if (!node_->disk().powered()) return;
  world_->Trace("{}: took over term {}: {}", node_->id(), term.value, status.ToString());
  if (status.ok()) {
    node_->led = term;
    serving_ = true;
    writers_running_ = true;
    sender_.Start(term);
    ++world_->counts.tenures;
    world_->judge->OnTookOver(*this, term);
  }
  EndStep();
  machine_->OnTookOver(now(), status);
}

void Process::RunStopWriters(absl::Time deadline) {
  // Who is in a transaction may end it; now and then somebody does not in time.
  const bool stays = world_->random.Chance(50);
  const auto end = [this, stays] {
    if (stays) world_->Trace("{}: a writer stays", node_->id());
    // From the attempt on nobody begins; after an error ResumeWriters follows.
    writers_running_ = false;
    EndStep();
    machine_->OnWritersStopped(
        now(), stays ? absl::DeadlineExceededError("a writer stays") : absl::OkStatus());
  };
  if (stays) {
    node_->AtTime(std::max(deadline, now()), [end](Process&) { end(); });
  } else {
    After(world_->random.Between(0, 30 * kMillisecond), end);
  }
}

void Process::RunStepDown() {
  world_->Trace("{}: steps down", node_->id());
  serving_ = false;
  writers_running_ = false;
  sender_.Stop();
  After(world_->random.Between(0, 20 * kMillisecond), [this] {
    node_->led = {};
    EndStep();
    machine_->OnSteppedDown(now());
  });
}

// ---- The disk ----

void Process::OnAppended(const LogEntry& entry, bool by_itself) {
  world_->judge->OnAppended(node_->number(), entry, by_itself);
}

void Process::RequestSync() {
  sync_wanted_ = true;
  if (sync_running_) return;
  sync_running_ = true;
  After(world_->random.Between(kMillisecond / 10, node_->disk_delay_max), [this] { Sync(); });
}

void Process::Sync() {
  sync_running_ = false;
  if (!std::exchange(sync_wanted_, false)) return;
  const absl::Status status = log_->Sync(log_->last_index());
  if (!node_->disk().powered()) return;
  if (!status.ok()) {
    if (!absl::IsResourceExhausted(status)) world_->Fail("sync: " + status.ToString());
    RequestSync();
    return;
  }
  world_->judge->OnSynced(node_->number(), *log_);
  FollowersChanged();
  receiver_.OnSynced();
}

// As Node::Maintain: databases, then old segments of the log.
void Process::Maintain() {
  After(kMaintenanceInterval, [this] { Maintain(); });
  RequestSync();
  if (world_->random.Chance(300)) (void)databases_->SyncAll();
  (void)log_->Retain(databases_->needed_index());
}

}  // namespace echofs::sim
