// The turns of one database: the next entry from memory or from the log, a drop, a finished copy.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "replication/apply_queue.h"
#include "replication/apply_queue_database.h"
#include "replication/limits.h"

namespace echofs {

ApplyQueue::Turn ApplyQueue::RunDatabase(Database& database) {
  Turn turn = Turn::kAgain;
  for (int i = 0; i < kApplyBatchMax && turn == Turn::kAgain && !stopping_ && !paused_; ++i) {
    turn = NextStep(database);
    UpdatePending(database);
  }
  mutex_.Unlock();
  const absl::Status ended = target_->EndTurn(database.name);
  mutex_.Lock();
  if (!ended.ok()) return Failed(database, std::string(ended.message()));
  // What was queued during EndTurn found the database with a worker.
  return turn == Turn::kIdle && database.HasWork() ? Turn::kAgain : turn;
}

ApplyQueue::Turn ApplyQueue::NextStep(Database& database) {
  if (database.copy) return InstallCopy(database);
  if (database.wants_copy) return Turn::kIdle;  // FinishCopy goes on
  if (database.wants_drop) return ApplyDrop(database);
  if (!database.refetch_reason.empty()) {
    WantCopy(database, std::exchange(database.refetch_reason, {}));
    return Turn::kAgain;
  }
  if (database.local.exists && !database.joined) return Join(database);
  if (!database.memory.empty()) return ApplyFromMemory(database);
  if (database.in_log) return ApplyFromLog(database);
  return Turn::kIdle;
}

ApplyQueue::Turn ApplyQueue::Join(Database& database) {
  mutex_.Unlock();
  const absl::StatusOr<ApplyOutcome> outcome = target_->Join(database.name);
  mutex_.Lock();
  if (absl::IsDataLoss(outcome.status())) {
    WantCopy(database, std::string(outcome.status().message()));
    return Turn::kAgain;
  }
  if (!outcome.ok()) return Failed(database, std::string(outcome.status().message()));
  if (outcome->kind == ApplyOutcome::Kind::kBlocked) {
    return Blocked(database, outcome->blocked_by_pid);
  }
  if (outcome->kind == ApplyOutcome::Kind::kLater) return Later(database, outcome->retry_after);
  database.joined = true;
  Succeeded(database);
  return Turn::kAgain;
}

ApplyQueue::Turn ApplyQueue::ApplyFromMemory(Database& database) {
  Database::Waiting waiting = std::move(database.memory.front());
  database.memory.pop_front();
  mutex_.Unlock();
  ViewSource payload(waiting.payload);
  const EntryOutcome outcome = ApplyMeasured(database.local, waiting.entry, payload);
  mutex_.Lock();
  memory_bytes_ -= waiting.MemorySize();
  const Turn turn = Settle(database, waiting.entry, outcome);
  if (turn == Turn::kLater) {
    memory_bytes_ += waiting.MemorySize();
    database.memory.push_front(std::move(waiting));
  }
  return turn;
}

ApplyQueue::Turn ApplyQueue::ApplyFromLog(Database& database) {
  const LogIndex last = database.log_last;
  LogIndex next = database.log_from;
  mutex_.Unlock();
  if (database.reader == nullptr || database.reader_next != next) {
    database.reader = log_->Read(next);
  }
  std::optional<LogEntry> entry;
  EntryOutcome outcome;
  while (next <= last && !interrupt_) {
    absl::StatusOr<std::optional<LogEntry>> found = database.reader->Next();
    if (found.ok() && !found->has_value()) {
      found = absl::OutOfRangeError(fmt::format("the log ends before entry {}", last.value));
    }
    if (!found.ok()) {
      outcome = {EntryOutcome::Kind::kGap, 0, std::string(found.status().message())};
      entry.emplace();
      break;
    }
    next = (*found)->index.Next();
    if ((*found)->kind == EntryKind::kOpenTerm || (*found)->database != database.name) continue;
    entry = *std::move(found);
    const std::unique_ptr<ByteSource> payload = database.reader->Payload();
    outcome = ApplyMeasured(database.local, *entry, *payload);
    break;
  }
  database.reader_next = next;
  mutex_.Lock();
  const Turn turn = entry ? Settle(database, *entry, outcome) : Turn::kAgain;
  if (turn == Turn::kLater) {
    // A payload is read once: the next try needs a new reader.
    database.reader = nullptr;
    database.log_from = entry->index;
  } else {
    database.log_from = next;
    if (next > database.log_last) {
      database.in_log = false;
      database.reader = nullptr;
    }
  }
  return turn;
}

EntryOutcome ApplyQueue::ApplyMeasured(const LocalPosition& position, const LogEntry& entry,
                                       ByteSource& payload) {
  const absl::Time begin = absl::Now();
  EntryOutcome outcome = ApplyEntry(*target_, position, entry, payload);
  if (outcome.kind == EntryOutcome::Kind::kApplied) {
    const absl::Time end = absl::Now();
    metrics_->apply.Observe(end - begin);
    metrics_->visible_lag.Observe(end - absl::FromUnixMillis(entry.timestamp_ms));
  } else if (outcome.kind == EntryOutcome::Kind::kDamaged) {
    metrics_->digest_mismatches.Add();
  }
  return outcome;
}

ApplyQueue::Turn ApplyQueue::ApplyDrop(Database& database) {
  LogEntry entry;
  entry.kind = EntryKind::kDrop;
  entry.index = log_->last_index();
  entry.term = log_->last_term();
  entry.database = database.name;
  entry.txid = database.local.txid.Next();
  entry.digest_before = database.local.digest;
  entry.timestamp_ms = absl::ToUnixMillis(absl::Now());
  mutex_.Unlock();
  ViewSource nothing{ByteView()};
  const EntryOutcome outcome = ApplyEntry(*target_, database.local, entry, nothing);
  mutex_.Lock();
  if (outcome.kind == EntryOutcome::Kind::kBlocked)
    return Blocked(database, outcome.blocked_by_pid);
  if (outcome.kind == EntryOutcome::Kind::kLater) return Later(database, outcome.retry_after);
  if (outcome.kind != EntryOutcome::Kind::kApplied) return Failed(database, outcome.message);
  spdlog::info("{} was deleted here, the cluster does not have it any more", database.name);
  database.wants_drop = false;
  database.plan.reset();
  database.rewind.reset();
  database.local = {false, database.txid_after_drop, 0, entry.index};
  Succeeded(database);
  return Turn::kAgain;
}

absl::StatusOr<ApplyOutcome> ApplyQueue::Install(const CompletedCopy& copy) {
  if (copy.pages) return target_->InstallPages(copy.position, copy.file->path(), *copy.pages);
  absl::StatusOr<ApplyOutcome> outcome = target_->InstallCopy(copy.position, copy.file->path());
  if (outcome.ok() && outcome->kind == ApplyOutcome::Kind::kApplied) copy.file->Release();
  return outcome;
}

ApplyQueue::Turn ApplyQueue::InstallCopy(Database& database) {
  CompletedCopy& copy = *database.copy;
  mutex_.Unlock();
  const absl::StatusOr<ApplyOutcome> outcome = Install(copy);
  mutex_.Lock();
  if (!outcome.ok() && !absl::IsDataLoss(outcome.status())) {
    return Failed(database, std::string(outcome.status().message()));
  }
  if (!outcome.ok()) {
    metrics_->digest_mismatches.Add();
    database.copy.reset();
    database.rewind.reset();  // its pages did not lead to the cluster's history: all of them
    WantCopy(database, std::string(outcome.status().message()));
    return Turn::kAgain;
  }
  if (outcome->kind == ApplyOutcome::Kind::kBlocked) {
    return Blocked(database, outcome->blocked_by_pid);
  }
  if (outcome->kind == ApplyOutcome::Kind::kLater) return Later(database, outcome->retry_after);
  database.local = {true, copy.position.txid, copy.position.digest, copy.position.index};
  database.log_from = copy.log_index.Next();
  database.in_log = database.log_last >= database.log_from;
  if (copy.pages) {
    const std::uint64_t bytes = copy.pages_fetched * copy.position.page_size;
    spdlog::info(
        "{} was taken back to the cluster's history: {} pages ({} bytes) fetched of {}, TXID {}",
        database.name, copy.pages_fetched, bytes, copy.position.page_count,
        copy.position.txid.value);
    ++rewinds_.databases;
    rewinds_.pages += copy.pages_fetched;
    rewinds_.bytes += bytes;
  } else {
    metrics_->copies.Add();
    spdlog::info("{} was copied: {} pages, TXID {}", database.name, copy.position.page_count,
                 copy.position.txid.value);
  }
  database.copy.reset();
  database.plan.reset();
  database.rewind.reset();
  Succeeded(database);
  return Turn::kAgain;
}

ApplyQueue::Turn ApplyQueue::Settle(Database& database, const LogEntry& entry,
                                    const EntryOutcome& outcome) {
  switch (outcome.kind) {
    case EntryOutcome::Kind::kApplied:
      database.local = {entry.kind != EntryKind::kDrop, entry.txid, entry.digest_after,
                        entry.index};
      database.copy_delay = absl::ZeroDuration();
      Succeeded(database);
      return Turn::kAgain;
    case EntryOutcome::Kind::kSkipped:
      database.local.index = std::max(database.local.index, entry.index);
      Succeeded(database);
      return Turn::kAgain;
    case EntryOutcome::Kind::kGap:
    case EntryOutcome::Kind::kDamaged:
      WantCopy(database, outcome.message);
      return Turn::kAgain;
    case EntryOutcome::Kind::kBlocked:
      return Blocked(database, outcome.blocked_by_pid);
    case EntryOutcome::Kind::kLater:
      return Later(database, outcome.retry_after);
    case EntryOutcome::Kind::kFailed:
      return Failed(database, outcome.message);
  }
  return Turn::kAgain;
}

ApplyQueue::Turn ApplyQueue::Blocked(Database& database, int pid) {
  database.delay = database.state == DatabaseState::kBlocked
                       ? std::min(database.delay * 2, kBlockedDelayMax)
                       : kBlockedDelayMin;
  database.retry_at = absl::Now() + database.delay;
  if (database.state != DatabaseState::kBlocked) database.blocked_since = absl::Now();
  database.state = DatabaseState::kBlocked;
  database.blocked_by_pid = pid;
  database.detail = pid == 0 ? "an application holds a lock on it"
                             : fmt::format("process {} holds a lock on it", pid);
  return Turn::kLater;
}

// Nothing is wrong: the state stays what it was.
ApplyQueue::Turn ApplyQueue::Later(Database& database, absl::Duration delay) {
  database.retry_at = absl::Now() + delay;
  return Turn::kLater;
}

ApplyQueue::Turn ApplyQueue::Failed(Database& database, const std::string& message) {
  if (database.state != DatabaseState::kStopped || database.detail != message) {
    spdlog::error("{} cannot be applied to, trying again: {}", database.name, message);
  }
  database.delay = database.state == DatabaseState::kStopped
                       ? std::min(database.delay * 2, kStoppedDelayMax)
                       : kStoppedDelayMin;
  database.retry_at = absl::Now() + database.delay;
  database.state = DatabaseState::kStopped;
  database.blocked_by_pid = 0;
  database.detail = message;
  return Turn::kLater;
}

void ApplyQueue::Succeeded(Database& database) {
  database.state = DatabaseState::kOk;
  database.detail.clear();
  database.blocked_by_pid = 0;
}

void ApplyQueue::ForgetMemory(Database& database) {
  for (const Database::Waiting& waiting : database.memory) memory_bytes_ -= waiting.MemorySize();
  database.memory.clear();
}

void ApplyQueue::WantCopy(Database& database, const std::string& reason) {
  copies_due_.erase({database.copy_at, &database});
  const bool first_try = !std::exchange(database.wants_copy, false);
  const absl::StatusOr<DatabasePosition> logged = log_->Position(database.name);
  if (!logged.ok() || logged->dropped) {
    // History has it deleted by now: nothing to copy, and the entries on the way there do not
    // matter.
    ForgetMemory(database);
    database.in_log = false;
    const Txid txid = logged.ok() ? logged->txid : Txid{};
    if (database.local.exists) {
      WantDrop(database, txid);
    } else {
      database.local = {false, txid, 0, log_->last_index()};
      Succeeded(database);
    }
    return;
  }
  if (first_try && database.local.exists && database.rewind) {
    spdlog::info("{}: {} of {} pages are fetched from the primary again: {}", database.name,
                 database.rewind->pages.size(), database.rewind->page_count, reason);
  } else if (first_try && database.local.exists) {
    spdlog::warn("{} is fetched from the primary again: {}", database.name, reason);
  }
  ForgetMemory(database);
  database.in_log = true;  // InstallCopy finds out from where
  database.log_from = log_->last_index().Next();
  database.wants_copy = true;
  database.copy_from = (database.rewind ? database.rewind->after : log_->last_index()).Next();
  database.copy_at = absl::Now() + database.copy_delay;
  database.copy_delay = std::clamp(database.copy_delay * 2, kCopyRetryDelayMin, kCopyRetryDelayMax);
  database.state = DatabaseState::kCopying;
  database.blocked_by_pid = 0;
  database.detail = reason;
  copies_due_.emplace(database.copy_at, &database);
  copy_work_.Signal();
}

absl::Status ApplyQueue::Refetch(const std::string& name, const std::string& reason) {
  absl::MutexLock lock(&mutex_);
  const auto found = databases_.find(name);
  if (found == databases_.end() || !found->second->local.exists) {
    return absl::NotFoundError(fmt::format("there is no local copy of {}", name));
  }
  Database& database = *found->second;
  if (database.wants_copy || database.copy) return absl::OkStatus();  // it comes already
  database.refetch_reason = reason;
  Schedule(database);
  return absl::OkStatus();
}

void ApplyQueue::WantDrop(Database& database, Txid txid) {
  database.wants_drop = true;
  database.txid_after_drop = txid;
}

}  // namespace echofs
