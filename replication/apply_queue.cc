#include "replication/apply_queue.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "absl/time/clock.h"
#include "replication/apply_queue_database.h"
#include "replication/limits.h"
#include "replication/status_macros.h"

namespace echofs {

const char* DatabaseStateName(DatabaseState state) {
  switch (state) {
    case DatabaseState::kOk:
      return "ok";
    case DatabaseState::kCopying:
      return "copying";
    case DatabaseState::kBlocked:
      return "blocked";
    case DatabaseState::kStopped:
      return "stopped";
  }
  return "";
}

ApplyQueue::ApplyQueue(ChangeLog* log, ApplyTarget* target, Metrics* metrics,
                       std::function<void()> on_progress)
    : log_(log), target_(target), metrics_(metrics), on_progress_(std::move(on_progress)) {}

ApplyQueue::~ApplyQueue() { Stop(); }

absl::Status ApplyQueue::Start() {
  {
    absl::MutexLock lock(&mutex_);
    ECHOFS_RETURN_IF_ERROR(Load({}));
  }
  for (int i = 0; i < kApplyWorkers; ++i) workers_.emplace_back([this] { Worker(); });
  return absl::OkStatus();
}

void ApplyQueue::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    interrupt_ = true;
    for (auto& [name, database] : databases_) {
      if (database->task != nullptr) database->task->Cancel();
    }
    work_.SignalAll();
    copy_work_.SignalAll();
    while (copies_running_ > 0) idle_.Wait(&mutex_);
  }
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
}

void ApplyQueue::Enqueue(const LogEntry& entry, std::optional<std::vector<std::uint8_t>> payload) {
  absl::MutexLock lock(&mutex_);
  received_ = entry.index;
  if (entry.kind == EntryKind::kOpenTerm) return;
  Database& database = Find(entry.database);
  database.log_last = entry.index;
  const std::uint64_t size = kQueuedEntryOverhead + (payload ? payload->size() : 0);
  const bool in_order = !database.in_log && !database.wants_copy && !database.copy;
  if (in_order && payload && memory_bytes_ + size <= kApplyQueueSizeMax) {
    database.memory.push_back({entry, *std::move(payload)});
    memory_bytes_ += size;
    memory_bytes_max_ = std::max(memory_bytes_max_, memory_bytes_);
  } else if (!database.in_log) {
    database.in_log = true;
    database.log_from = entry.index;
  }
  if (database.wants_copy && entry.kind == EntryKind::kDrop) {
    // There will be nothing left to copy: whoever copies finds out, or nobody has begun.
    if (database.task != nullptr) {
      database.task->Cancel();
    } else {
      WantCopy(database, database.detail);
    }
  }
  UpdatePending(database);
  Schedule(database);
}

absl::Status ApplyQueue::Rebase(const std::function<absl::StatusOr<LogCut>()>& cut) {
  {
    absl::MutexLock lock(&mutex_);
    paused_ = true;
    interrupt_ = true;
    for (auto& [name, database] : databases_) {
      if (database->task != nullptr) database->task->Cancel();
    }
    while (running_ > 0 || copies_running_ > 0) idle_.Wait(&mutex_);
  }
  absl::StatusOr<LogCut> done = cut();
  absl::Status status = done.status();
  absl::MutexLock lock(&mutex_);
  if (!done.ok()) done = LogCut{false, log_->last_index(), {}};
  if (absl::Status loaded = Load(MergePlans(*std::move(done))); status.ok()) status = loaded;
  paused_ = false;
  interrupt_ = stopping_;
  work_.SignalAll();
  copy_work_.SignalAll();
  return status;
}

std::shared_ptr<CopyTask> ApplyQueue::NextCopy() {
  absl::MutexLock lock(&mutex_);
  while (!stopping_) {
    if (paused_ || copies_due_.empty()) {
      copy_work_.Wait(&mutex_);
      continue;
    }
    const auto [time, database] = *copies_due_.begin();
    if (time > absl::Now()) {
      copy_work_.WaitWithDeadline(&mutex_, time);
      continue;
    }
    copies_due_.erase(copies_due_.begin());
    database->task = std::make_shared<CopyTask>(database->name, database->rewind);
    ++copies_running_;
    return database->task;
  }
  return nullptr;
}

void ApplyQueue::FinishCopy(const std::shared_ptr<CopyTask>& task,
                            absl::StatusOr<CompletedCopy> result) {
  absl::MutexLock lock(&mutex_);
  --copies_running_;
  idle_.SignalAll();
  Database& database = Find(task->database);
  database.task = nullptr;
  if (stopping_ || paused_) return;  // Load decides anew
  if (result.ok()) {
    database.wants_copy = false;
    database.copy = *std::move(result);
  } else {
    const bool again = task->cancelled() || absl::IsUnavailable(result.status()) ||
                       absl::IsCancelled(result.status());
    if (!again) database.rewind.reset();
    if (!task->cancelled()) {
      spdlog::warn("copying {} failed, trying again: {}", database.name,
                   std::string(result.status().message()));
    }
    WantCopy(database, std::string(result.status().message()));
  }
  UpdatePending(database);
  Schedule(database);
}

LogIndex ApplyQueue::applied_index() const {
  absl::MutexLock lock(&mutex_);
  return pending_.empty() ? received_ : pending_.begin()->Previous();
}

LogIndex ApplyQueue::needed_index() const {
  absl::MutexLock lock(&mutex_);
  LogIndex needed = received_.Next();
  for (const auto& [name, database] : databases_) {
    if (database->wants_copy) {
      needed = std::min(needed, database->copy_from);
    } else if (database->copy) {
      needed = std::min(needed, database->copy->log_index.Next());
    } else if (database->pending) {
      needed = std::min(needed, *database->pending);
    }
  }
  return needed;
}

bool ApplyQueue::copying() const {
  absl::MutexLock lock(&mutex_);
  return std::any_of(databases_.begin(), databases_.end(), [](const auto& entry) {
    return entry.second->wants_copy || entry.second->copy;
  });
}

std::vector<DatabaseApplyStatus> ApplyQueue::Databases() const {
  absl::MutexLock lock(&mutex_);
  std::vector<DatabaseApplyStatus> statuses;
  for (const auto& [name, database] : databases_) {
    const bool waits = database->wants_copy || database->copy || database->wants_drop;
    if (!database->local.exists && !waits && !database->pending) continue;  // dropped
    DatabaseApplyStatus& status = statuses.emplace_back();
    status.name = name;
    const bool refetch = !database->refetch_reason.empty();
    status.state = refetch ? DatabaseState::kCopying : database->state;
    status.detail = database->detail;
    status.blocked_by_pid = database->blocked_by_pid;
    if (database->state == DatabaseState::kBlocked) {
      status.blocked_for = absl::Now() - database->blocked_since;
    }
    if (database->task != nullptr) {
      status.copy_pages_done = database->task->pages_done;
      status.copy_pages = database->task->pages;
    }
    status.applied_index = database->local.index;
  }
  return statuses;
}

RewindStats ApplyQueue::rewinds() const {
  absl::MutexLock lock(&mutex_);
  return rewinds_;
}

std::uint64_t ApplyQueue::memory_bytes_max() const {
  absl::MutexLock lock(&mutex_);
  return memory_bytes_max_;
}

void ApplyQueue::Worker() {
  mutex_.Lock();
  while (!stopping_) {
    ScheduleDue();
    if (paused_ || ready_.empty()) {
      if (paused_ || due_.empty()) {
        work_.Wait(&mutex_);
      } else {
        work_.WaitWithDeadline(&mutex_, due_.begin()->first);
      }
      continue;
    }
    Database& database = *ready_.front();
    ready_.pop_front();
    database.queued = false;
    database.running = true;
    ++running_;
    const Turn turn = RunDatabase(database);
    database.running = false;
    --running_;
    if (turn == Turn::kAgain) Schedule(database);
    if (turn == Turn::kLater) {
      database.waiting = true;
      due_.emplace(database.retry_at, &database);
    }
    if (paused_) idle_.SignalAll();
    mutex_.Unlock();
    on_progress_();
    mutex_.Lock();
  }
  mutex_.Unlock();
}

ApplyQueue::Database& ApplyQueue::Find(const std::string& name) {
  std::unique_ptr<Database>& database = databases_[name];
  if (database == nullptr) database = std::make_unique<Database>(name);
  return *database;
}

void ApplyQueue::Schedule(Database& database) {
  if (database.running || database.queued || database.waiting) return;
  database.queued = true;
  ready_.push_back(&database);
  work_.Signal();
}

void ApplyQueue::ScheduleDue() {
  const absl::Time now = absl::Now();
  while (!due_.empty() && due_.begin()->first <= now) {
    Database& database = *due_.begin()->second;
    due_.erase(due_.begin());
    database.waiting = false;
    Schedule(database);
  }
}

void ApplyQueue::UpdatePending(Database& database) {
  std::optional<LogIndex> pending;
  if (database.wants_copy || database.copy || database.wants_drop) {
    pending = database.local.index.Next();
  } else if (!database.memory.empty()) {
    pending = database.memory.front().entry.index;
  } else if (database.in_log) {
    pending = database.log_from;
  }
  if (pending == database.pending) return;
  if (database.pending) pending_.erase(pending_.find(*database.pending));
  if (pending) pending_.insert(*pending);
  database.pending = pending;
}

absl::Status ApplyQueue::Load(RewindPlans plans) {
  databases_.clear();
  ready_.clear();
  due_.clear();
  copies_due_.clear();
  pending_.clear();
  memory_bytes_ = 0;
  received_ = log_->last_index();
  for (const std::string& name : target_->LocalDatabases()) {
    absl::StatusOr<DatabasePosition> position = target_->AppliedPosition(name);
    if (absl::IsNotFound(position.status())) continue;
    if (!position.ok()) return position.status();
    if (position->dropped) continue;
    Find(name).local = {true, position->txid, position->digest, position->index};
  }
  std::map<std::string, DatabasePosition> logged;
  for (DatabasePosition& position : log_->Positions()) {
    Find(position.name);
    logged.emplace(position.name, std::move(position));
  }
  for (auto& [name, database] : databases_) {
    const auto found = logged.find(name);
    if (const auto plan = plans.find(name); plan != plans.end()) {
      database->plan = std::move(plan->second);
    }
    LoadDatabase(*database, found == logged.end() ? nullptr : &found->second);
    UpdatePending(*database);
    Schedule(*database);
  }
  return absl::OkStatus();
}

void ApplyQueue::LoadDatabase(Database& database, const DatabasePosition* logged) {
  LocalPosition& local = database.local;
  if (logged == nullptr || logged->dropped) database.plan.reset();
  if (logged == nullptr) {
    // With an empty log this node has not joined yet, and nothing is known against the database.
    if (local.exists && received_.value > 0) WantDrop(database, {});
    return;
  }
  database.log_last = logged->index;
  if (logged->dropped) {
    if (local.exists) {
      WantDrop(database, logged->txid);
    } else {
      local = {false, logged->txid, 0, logged->index};
    }
    return;
  }
  if (local.exists && local.txid == logged->txid && local.digest == logged->digest) {
    local.index = logged->index;
    return;
  }
  if (database.plan && local.exists && local.index > database.plan->after) {
    local.index = database.plan->after;  // of the history
    WantCopy(database,
             PrepareRewind(database, *logged)
                 ? "it has change sets that are not in the cluster's history"
                 : "it has change sets that are not in the cluster's history, too many or "
                   "of a kind that wants a whole copy");
    return;
  }
  database.plan.reset();
  const bool behind = !local.exists || local.txid < logged->txid;
  if (behind && logged->index >= log_->first_index()) {
    // The first entry that is found tells whether the log reaches back to the local copy.
    database.in_log = true;
    database.log_from = std::max(log_->first_index(), local.index.Next());
    return;
  }
  local.index = std::min(local.index, received_.Previous());  // it may have been of another history
  WantCopy(database,
           !local.exists
               ? "there is no local copy yet"
               : fmt::format("the local copy is at TXID {} with digest {:016x}, the "
                             "history at {} with {:016x}",
                             local.txid.value, local.digest, logged->txid.value, logged->digest));
}

bool ApplyQueue::PrepareRewind(Database& database, const DatabasePosition& logged) {
  // After a second cut the log may have gone on since the plan's index: where the database stood there is then
  // not known any more.
  if (logged.index > database.plan->after) return false;
  const std::optional<PageSet> pages = PagesToFetch(*database.plan, logged);
  if (!pages) return false;
  database.rewind = PagesWanted{*pages, database.plan->after, logged.page_count, logged.page_size};
  return true;
}

RewindPlans ApplyQueue::MergePlans(LogCut cut) {
  if (cut.started_anew) return {};
  RewindPlans plans = std::move(cut.plans);
  for (const auto& [name, database] : databases_) {
    if (!database->plan) continue;
    const auto found = plans.find(name);
    plans[name] = echofs::MergePlans(*database->plan,
                                     found == plans.end() ? nullptr : &found->second, cut.after);
  }
  return plans;
}

}  // namespace echofs
