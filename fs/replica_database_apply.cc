// The applying half of ReplicaDatabase; which way a change goes, and why, is in replica_database.h.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/time/clock.h"
#include "fs/page_run_writer.h"
#include "fs/replica_database.h"
#include "replication/digest.h"
#include "replication/failpoint.h"
#include "replication/status_macros.h"

namespace echofs::fs {
namespace {

using sqlite::FileRole;

// Change sets up to this many bytes of pages are checked against their digest before the first page
// of a rollback-mode database is written.
constexpr std::size_t kVerifyBufferSize = 8 << 20;

// What readers in rollback mode compare to see whether their cache is current (pager.c:
// dbFileVers).
constexpr std::size_t kFileVersionOffset = 24;
constexpr std::size_t kFileVersionSize = 16;

bool IsThere(const DatabasePosition& position) {
  return position.page_count != 0 && !position.dropped;
}

}  // namespace

absl::Status ReplicaDatabase::CheckFollows(const LogEntry& entry) const {
  const ReplicaDatabaseStatus now = status();
  if (closed_) return absl::FailedPreconditionError("the database was closed for a role change");
  if (!now.stopped.ok()) return now.stopped;
  // What begins from nothing holds the whole database. Its TXID is any later one: that of a database that was
  // deleted goes on when it is made again, and the files that knew it are gone.
  const bool follows = IsThere(now.position) ? entry.txid == now.position.txid.Next()
                                             : entry.txid > now.position.txid;
  if (!follows || entry.digest_before != now.position.digest) {
    return absl::FailedPreconditionError(fmt::format(
        "log entry {} (TXID {}, digest before {:016x}) does not follow TXID {}, digest {:016x}",
        entry.index.value, entry.txid.value, entry.digest_before, now.position.txid.value,
        now.position.digest));
  }
  return absl::OkStatus();
}

absl::StatusOr<ApplyOutcome> ReplicaDatabase::Apply(const LogEntry& entry, ByteSource& payload) {
  if (entry.kind == EntryKind::kDrop && !closed_) {
    // Whatever state the database is in: also one that has stopped goes.
    ECHOFS_RETURN_IF_ERROR(Drop(entry));
    return ApplyOutcome{};
  }
  ECHOFS_RETURN_IF_ERROR(CheckFollows(entry));
  if (entry.kind != EntryKind::kChangeSet || !IsValidPageSize(entry.page_size)) {
    return absl::InvalidArgumentError(
        fmt::format("log entry {} is not a change set", entry.index.value));
  }
  ECHOFS_ASSIGN_OR_RETURN(const JournalApply::Attempt attempt,
                          MakeReady(entry.page_size, JournalApply::Turn::kApply));
  if (!attempt.held) return NotReady(attempt);

  Target target;
  target.position = {entry.database,  entry.txid,       entry.digest_after,
                     entry.page_size, entry.page_count, entry.attributes,
                     entry.wal,       entry.index,      false};
  absl::StatusOr<std::unique_ptr<ChangeStream>> stream = OpenChangeSet(entry, &payload, Base());
  const absl::Status written = stream.ok() ? Write(**stream, target) : stream.status();
  if (written.ok()) return ApplyOutcome{};
  if (journal_ != nullptr && !damaged_) ECHOFS_RETURN_IF_ERROR(journal_->Unlock());
  return absl::IsDataLoss(written) ? Stop(written) : written;
}

ApplyOutcome ReplicaDatabase::NotReady(const JournalApply::Attempt& attempt) {
  if (attempt.readers_turn > absl::ZeroDuration()) {
    return {ApplyOutcome::Kind::kLater, 0, attempt.readers_turn};
  }
  return {ApplyOutcome::Kind::kBlocked, attempt.blocked_by_pid, {}};
}

absl::Status ReplicaDatabase::EndTurn() {
  return journal_ != nullptr && !damaged_ ? journal_->Rest() : absl::OkStatus();
}

bool ReplicaDatabase::Exists() const { return IsThere(position()); }

BaseState ReplicaDatabase::Base() {
  BaseState base;
  if (wal_ == nullptr && journal_ == nullptr) return base;
  const DatabasePosition now = position();
  base.page_size = now.page_size;
  base.page_count = now.page_count;
  base.digest = now.digest;
  base.read = [this](PageNumber number, MutableByteView out) {
    return wal_ != nullptr ? wal_->ReadPage(number, out) : journal_->ReadPage(number, out);
  };
  return base;
}

absl::StatusOr<JournalApply::Attempt> ReplicaDatabase::MakeReady(std::uint32_t page_size,
                                                                 JournalApply::Turn turn) {
  JournalApply::Attempt attempt{true, 0, {}};
  if (Exists() && wal_ == nullptr && journal_ == nullptr) {
    ECHOFS_ASSIGN_OR_RETURN(attempt, AttachAgain());
    if (!attempt.held) return attempt;
  }
  if (wal_ != nullptr && page_size != position().page_size) {
    ECHOFS_ASSIGN_OR_RETURN(attempt, LeaveWal());
    alone_wanted_since_ =
        attempt.held ? absl::InfiniteFuture() : std::min(alone_wanted_since_, absl::Now());
  } else if (wal_ != nullptr) {
    ECHOFS_ASSIGN_OR_RETURN(const bool pause, PauseForRestart());
    if (pause) attempt = {false, wal_->ReaderPid(), {}};
  } else if (journal_ != nullptr) {
    ECHOFS_ASSIGN_OR_RETURN(attempt, journal_->TryLock(turn));
  }
  absl::MutexLock lock(&mutex_);
  status_.blocked_by_pid = attempt.blocked_by_pid;
  return attempt;
}

// After an application was in the way when the file had just been adopted.
absl::StatusOr<JournalApply::Attempt> ReplicaDatabase::AttachAgain() {
  Detach();
  int pid = 0;
  const absl::Status attached = Attach(&pid);
  if (absl::IsUnavailable(attached)) return JournalApply::Attempt{false, pid, {}};
  ECHOFS_RETURN_IF_ERROR(attached);
  return JournalApply::Attempt{true, 0, {}};
}

// A3: with readers that overlap all the time a restart never finds the WAL unused. While nothing is
// applied, new readers have no newer frames to read, and old ones leave.
absl::StatusOr<bool> ReplicaDatabase::PauseForRestart() {
  if (wal_->max_frame() < options_.pause_frames) {
    next_pause_ = options_.pause_frames;
    pause_until_ = absl::InfinitePast();
  }
  if (wal_->max_frame() < next_pause_) return false;
  {
    absl::MutexLock content(&content_mutex_);
    ECHOFS_ASSIGN_OR_RETURN(const bool complete, wal_->Checkpoint());
    if (complete) {
      ECHOFS_ASSIGN_OR_RETURN(const bool restarted, wal_->TryRestart());
      if (restarted) return false;
    }
  }
  const absl::Time now = absl::Now();
  if (pause_until_ == absl::InfinitePast()) {
    pause_until_ = now + options_.pause_max;
    options_.metrics->apply_pauses.Add();
    absl::MutexLock lock(&mutex_);
    ++status_.pauses;
  }
  if (now < pause_until_) return true;
  pause_until_ = absl::InfinitePast();
  next_pause_ = wal_->max_frame() + options_.pause_frames;
  return false;
}

// On success EXCLUSIVE is held and journal_ is set: nobody sees the database without its WAL until
// it is unlocked.
absl::StatusOr<JournalApply::Attempt> ReplicaDatabase::LeaveWal() {
  ECHOFS_ASSIGN_OR_RETURN(const DatabaseLock::Attempt attempt,
                          lock_->TryExclusive(DatabaseLock::Pending::kDrop));
  if (!attempt.held) return JournalApply::Attempt{false, attempt.blocked_by_pid, {}};
  {
    absl::MutexLock content(&content_mutex_);
    const absl::Status stopped = wal_->Stop();
    if (!stopped.ok()) {
      ECHOFS_RETURN_IF_ERROR(lock_->DowngradeToShared());
      return stopped;
    }
  }
  int pid = 0;
  std::unique_ptr<WalApply> wal;
  ECHOFS_RETURN_IF_ERROR(StartJournal(&pid));
  {
    absl::MutexLock content(&content_mutex_);
    wal = std::move(wal_);
    absl::MutexLock lock(&mutex_);
    index_.reset();
    shm_file_.reset();
  }
  wal.reset();
  Failpoint("apply.leave_wal.before");
  ECHOFS_RETURN_IF_ERROR(files_->Remove(FileRole::kWal));
  Failpoint("apply.leave_wal.after");
  ECHOFS_RETURN_IF_ERROR(files_->Remove(FileRole::kShm));
  return JournalApply::Attempt{true, 0, {}};
}

bool ReplicaDatabase::ReadersAreOverdue() const {
  return wal_ != nullptr && absl::Now() - alone_wanted_since_ >= options_.reader_timeout;
}

absl::StatusOr<ReplicaDatabase::PageOne> ReplicaDatabase::InspectPageOne(
    const std::optional<ChangeStream::Page>& page, const Target& target) {
  PageOne result;
  result.wal_mode = status().wal_mode;
  if (!page || page->number != 1) return result;
  const std::optional<sqlite::DatabaseHeader> header = sqlite::ParseDatabaseHeader(page->content);
  if (!header) return absl::DataLossError("page 1 of a change set is not that of a database");
  result.wal_mode = header->wal_mode;
  result.counter = header->change_counter;
  const BaseState base = Base();
  if (base.page_size != page->content.size()) {
    result.counter_moved = true;
    return result;
  }
  std::vector<std::uint8_t> old(page->content.size());
  ECHOFS_RETURN_IF_ERROR(base.read(1, old));
  result.counter_moved =
      std::memcmp(old.data() + kFileVersionOffset, page->content.data() + kFileVersionOffset,
                  kFileVersionSize) != 0;
  if (const auto old_header = sqlite::ParseDatabaseHeader(old)) {
    result.old_counter = old_header->change_counter;
  }
  if (!target.follows || journal_ != nullptr) {
    // Of two histories the higher of their counters, or of this one the highest so far: all caches are at or below it.
    counter_floor_ = std::max(counter_floor_, result.old_counter);
  }
  result.counter_moved &= result.counter > counter_floor_ || counter_floor_ == 0;
  return result;
}

absl::Status ReplicaDatabase::Write(ChangeStream& stream, const Target& target) {
  if (!Exists()) return WriteNew(stream, target);
  ECHOFS_ASSIGN_OR_RETURN(const std::optional<ChangeStream::Page> first, stream.Next());
  ECHOFS_ASSIGN_OR_RETURN(PageOne page_one, InspectPageOne(first, target));
  if (wal_ != nullptr && !page_one.wal_mode && page_one.counter_moved) {
    ECHOFS_RETURN_IF_ERROR(LeaveWal().status());  // with readers there, the WAL stays for now
  }
  if (wal_ != nullptr) {
    ECHOFS_RETURN_IF_ERROR(WriteWal(stream, first, target));
  } else {
    ECHOFS_RETURN_IF_ERROR(WriteInPlace(stream, first, page_one, target));
  }
  {
    absl::MutexLock lock(&mutex_);
    status_.wal_mode = page_one.wal_mode;
  }
  UpdateStatus();
  SetAttributes(target.position.attributes);
  return absl::OkStatus();
}

absl::Status ReplicaDatabase::WriteWal(ChangeStream& stream, std::optional<ChangeStream::Page> page,
                                       const Target& target) {
  wal_->Begin();
  const absl::Status appended = AppendFrames(stream, page, target);
  if (!appended.ok()) {
    const absl::Status abandoned = wal_->Abandon();
    return abandoned.ok() ? appended : Stop(abandoned);
  }
  absl::MutexLock content(&content_mutex_);
  const absl::Status checkpointed = wal_->MaybeCheckpoint();
  if (!checkpointed.ok()) {
    // The change set is in; the WAL goes on growing until a later try succeeds.
    spdlog::warn("checkpoint of {} failed, will be tried again: {}", target.position.name,
                 checkpointed.ToString());
  }
  return absl::OkStatus();
}

absl::Status ReplicaDatabase::AppendFrames(ChangeStream& stream,
                                           std::optional<ChangeStream::Page> page,
                                           const Target& target) {
  while (page) {
    ECHOFS_RETURN_IF_ERROR(wal_->AddPage(page->number, page->content));
    ECHOFS_ASSIGN_OR_RETURN(page, stream.Next());
  }
  ECHOFS_RETURN_IF_ERROR(CheckDigest(stream, target));
  absl::MutexLock content(&content_mutex_);
  ECHOFS_RETURN_IF_ERROR(wal_->Commit(target.position.page_count));
  SetPosition(target.position);
  return absl::OkStatus();
}

// The caller holds EXCLUSIVE.
absl::Status ReplicaDatabase::WriteInPlace(ChangeStream& stream,
                                           std::optional<ChangeStream::Page> page,
                                           const PageOne& page_one, const Target& target) {
  const bool changes = page.has_value();
  ECHOFS_RETURN_IF_ERROR(options_.sync_log(target.position.index));
  bool touched = false;
  {
    absl::MutexLock content(&content_mutex_);
    const absl::Status written = WritePages(stream, page, target, &touched);
    if (!written.ok()) {
      damaged_ |= touched;
      return touched ? Stop(written) : written;
    }
    SetPosition(target.position);
    absl::MutexLock lock(&mutex_);
    status_.wal_mode = page_one.wal_mode;
  }
  if (page_one.wal_mode || (changes && !page_one.counter_moved)) {
    int pid = 0;
    const absl::Status started = StartWal(&pid);
    if (!started.ok()) return Stop(started);
    return lock_->DowngradeToShared();
  }
  return journal_->EndChange();
}

// *touched says whether the file was written to.
absl::Status ReplicaDatabase::WritePages(ChangeStream& stream,
                                         std::optional<ChangeStream::Page> page,
                                         const Target& target, bool* touched) {
  const std::uint32_t page_size = target.position.page_size;
  std::vector<PageNumber> numbers;
  std::vector<std::uint8_t> buffered;
  while (page && buffered.size() < kVerifyBufferSize) {
    numbers.push_back(page->number);
    buffered.insert(buffered.end(), page->content.begin(), page->content.end());
    ECHOFS_ASSIGN_OR_RETURN(page, stream.Next());
  }
  if (!page) ECHOFS_RETURN_IF_ERROR(CheckDigest(stream, target));
  *touched = true;
  Failpoint("apply.pages.before");
  if (page_size != position().page_size) journal_->SetPageSize(page_size);
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    ECHOFS_RETURN_IF_ERROR(journal_->WritePage(
        numbers[i], ByteView(buffered).subspan(i * std::size_t{page_size}, page_size)));
  }
  while (page) {
    ECHOFS_RETURN_IF_ERROR(journal_->WritePage(page->number, page->content));
    ECHOFS_ASSIGN_OR_RETURN(page, stream.Next());
    if (!page) ECHOFS_RETURN_IF_ERROR(CheckDigest(stream, target));
  }
  return journal_->Finish(target.position.page_count);
}

absl::Status ReplicaDatabase::CheckDigest(const ChangeStream& stream, const Target& target) {
  if (stream.digest() == target.position.digest) return absl::OkStatus();
  return absl::DataLossError(fmt::format(
      "digest of {} after TXID {} would be {:016x}, but is {:016x} on the primary",
      target.position.name, target.position.txid.value, stream.digest(), target.position.digest));
}

// A failure is no reason to refuse the change set, which is in the files by now.
void ReplicaDatabase::SetAttributes(const FileAttributes& attributes) {
  const DatabasePosition now = position();
  if (now.attributes == attributes) return;
  const absl::Status status = files_->SetAttributes(attributes);
  if (!status.ok()) {
    spdlog::warn("cannot set owner and mode of {}: {}", now.name, status.ToString());
    return;
  }
  absl::MutexLock lock(&mutex_);
  status_.position.attributes = attributes;
}

absl::Status ReplicaDatabase::Stop(absl::Status why) {
  absl::MutexLock lock(&mutex_);
  if (status_.stopped.ok()) status_.stopped = why;
  return why;
}

// Attributes are set by SetAttributes.
void ReplicaDatabase::SetPosition(const DatabasePosition& position) {
  absl::MutexLock lock(&mutex_);
  const FileAttributes attributes = status_.position.attributes;
  const bool existed = IsThere(status_.position);
  status_.position = position;
  if (existed) status_.position.attributes = attributes;
}

void ReplicaDatabase::UpdateStatus() {
  absl::MutexLock lock(&mutex_);
  status_.wal_frames = wal_ != nullptr ? wal_->max_frame() : 0;
  if (wal_ != nullptr) status_.wal = wal_->stats();
}

}  // namespace echofs::fs
