#include "replication/change_log.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "replication/change_log_impl.h"
#include "replication/failpoint.h"
#include "replication/log_entry_writer.h"
#include "replication/status_macros.h"

namespace echofs {

absl::StatusOr<std::unique_ptr<ChangeLog>> ChangeLog::Open(const std::string& directory,
                                                           const ChangeLogOptions& options) {
  ECHOFS_ASSIGN_OR_RETURN(RecoveredLog recovered, RecoverLog(directory, options));
  return std::make_unique<ChangeLogImpl>(directory, options, std::move(recovered));
}

absl::StatusOr<LogIndex> ChangeLog::Append(const LogEntry& entry, ByteView payload) {
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<EntryWriter> writer, Begin(entry));
  ECHOFS_RETURN_IF_ERROR(writer->Write(payload));
  return writer->Commit(entry);
}

ChangeLogImpl::ChangeLogImpl(std::string directory, const ChangeLogOptions& options,
                             RecoveredLog recovered)
    : directory_(std::move(directory)),
      options_(options),
      slots_(std::move(recovered.slots)),
      file_(std::move(recovered.file)),
      catalog_(std::move(recovered.catalog)),
      terms_(std::move(recovered.terms)),
      last_(recovered.last),
      last_term_(recovered.last_term),
      synced_(recovered.last),
      synced_offset_(slots_.back().end),
      watermark_(std::move(recovered.watermark)) {
  readable_from_ = slots_.front().segment->base().value + 1;
}

void ChangeLogImpl::Take(bool* flag) {
  absl::MutexLock lock(&mu_);
  while (*flag) (flag == &sync_held_ ? sync_free_ : lock_free_).Wait(&mu_);
  *flag = true;
}

void ChangeLogImpl::Release(bool* flag) {
  absl::MutexLock lock(&mu_);
  *flag = false;
  (flag == &sync_held_ ? sync_free_ : lock_free_).SignalAll();
}

absl::StatusOr<std::unique_ptr<EntryWriter>> ChangeLogImpl::Begin(const LogEntry& entry) {
  if (entry.kind != EntryKind::kOpenTerm && !IsValidDatabaseName(entry.database)) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' cannot be the name of a database", entry.database));
  }
  Take(&write_held_);
  if (absl::Status status = PrepareToAppend(entry.index); !status.ok()) {
    Release(&write_held_);
    return status;
  }
  absl::MutexLock lock(&mu_);
  return std::make_unique<LogEntryWriter>(this, entry.database, file_, slots_.back().end);
}

absl::Status ChangeLogImpl::PrepareToAppend(LogIndex wanted) {
  bool dirty;
  bool full;
  {
    absl::MutexLock lock(&mu_);
    ECHOFS_RETURN_IF_ERROR(broken_);
    if (wanted.value != 0 && wanted != last_.Next()) {
      return absl::FailedPreconditionError(fmt::format(
          "gap in the log: the entry has index {}, the last one is {}", wanted.value, last_.value));
    }
    dirty = tail_dirty_;
    const SegmentSlot& slot = slots_.back();
    full = slot.end - slot.segment->data_start() >= options_.segment_size;
  }
  if (dirty) ECHOFS_RETURN_IF_ERROR(CutTail());
  if (full) return Roll();
  return absl::OkStatus();
}

absl::Status ChangeLogImpl::CutTail() {
  std::shared_ptr<File> file;
  std::uint64_t end;
  {
    absl::MutexLock lock(&mu_);
    tail_dirty_ = true;
    file = file_;
    end = slots_.back().end;
  }
  ECHOFS_RETURN_IF_ERROR(file->Truncate(end));
  absl::MutexLock lock(&mu_);
  tail_dirty_ = false;
  return absl::OkStatus();
}

absl::Status ChangeLogImpl::Roll() {
  SegmentHeader header;
  LogCatalog catalog;
  TermHistory terms;
  {
    absl::MutexLock lock(&mu_);
    header.base = last_;
    header.base_term = last_term_;
    header.previous_base = slots_.back().segment->base().value;
    header.previous_size = slots_.back().end;
    header.created_ms = NowMs();
    catalog = catalog_;
    terms = terms_;
  }
  ECHOFS_RETURN_IF_ERROR(Sync(header.base));
  Failpoint("log.roll.before");
  const std::string temporary = PathOf(kNewSegmentName);
  const std::string path = directory_ + "/" + SegmentFileName(header.base);
  std::uint64_t data_start = 0;
  absl::StatusOr<std::unique_ptr<File>> file =
      WriteSegmentFile(options_.storage, temporary, header, catalog, terms, &data_start);
  if (!file.ok()) {
    // Gives its space back; a leftover does no harm.
    (void)options_.storage->Remove(temporary);
    return file.status();
  }
  Failpoint("log.roll_rename.before");
  ECHOFS_RETURN_IF_ERROR(options_.storage->Rename(temporary, path));
  Failpoint("log.roll_rename.after");
  if (absl::Status status = options_.storage->SyncDirectory(directory_); !status.ok()) {
    (void)options_.storage->Remove(path);
    return status;
  }
  Failpoint("log.roll.after");
  absl::MutexLock lock(&mu_);
  slots_.push_back({std::make_shared<LogSegment>(path, header, data_start), data_start});
  file_ = *std::move(file);
  synced_offset_ = data_start;
  return absl::OkStatus();
}

absl::Status ChangeLogImpl::Admit(LogEntry* entry) {
  absl::MutexLock lock(&mu_);
  if (entry->index.value == 0) entry->index = last_.Next();
  return CheckFollows(*entry, last_, last_term_, catalog_);
}

void ChangeLogImpl::Publish(const LogEntry& entry) {
  absl::MutexLock lock(&mu_);
  SegmentSlot& slot = slots_.back();
  slot.segment->AddPoint(entry.index, slot.end);
  slot.end += entry.RecordSize();
  catalog_.Apply(entry);
  terms_.Add(entry.index, entry.term);
  last_ = entry.index;
  last_term_ = entry.term;
  committed_.SignalAll();
}

absl::Status ChangeLogImpl::CheckRoom(std::uint64_t bytes) const {
  // An entry brings a header, and now and then a new segment with its catalog.
  constexpr std::uint64_t kReserve = 64 << 10;  // bytes
  ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t free, options_.storage->FreeBytes(directory_));
  if (free >= bytes + kReserve) return absl::OkStatus();
  return StatusFromErrno(ENOSPC, fmt::format("{}: {} bytes are free", directory_, free));
}

absl::Status ChangeLogImpl::Sync(LogIndex index) {
  std::shared_ptr<File> file;
  std::string path;
  LogIndex target;
  std::uint64_t begin;
  std::uint64_t end;
  bool again;
  {
    absl::MutexLock lock(&mu_);
    for (;;) {
      if (index <= synced_) return absl::OkStatus();
      ECHOFS_RETURN_IF_ERROR(broken_);
      if (index > last_) {
        return absl::OutOfRangeError(fmt::format("entry {} is not in the log, whose last one is {}",
                                                 index.value, last_.value));
      }
      if (!sync_held_) break;
      sync_free_.Wait(&mu_);
    }
    sync_held_ = true;
    file = file_;
    path = slots_.back().segment->path();
    target = last_;
    begin = synced_offset_;
    end = slots_.back().end;
    again = sync_failed_;
  }
  // Everybody who comes while this runs waits for the next turn, and then one sync is for all of
  // them.
  Failpoint("log.sync.before");
  absl::Status status =
      again ? RewriteAndSync(options_.storage, file.get(), path, begin, end) : file->Sync();
  // The watermark sharpens the check at Open only, so that its failure is no failure of the sync.
  if (status.ok()) {
    Failpoint("log.sync.after");
    (void)watermark_->Write(target);
    Failpoint("log.watermark.after");
  }
  absl::MutexLock lock(&mu_);
  if (status.ok()) {
    synced_ = target;
    synced_offset_ = end;
  }
  sync_failed_ = !status.ok();
  sync_held_ = false;
  sync_free_.SignalAll();
  return status;
}

LogIndex ChangeLogImpl::FirstLocked() const { return slots_.front().segment->base().Next(); }

LogIndex ChangeLogImpl::first_index() const { return readable_from(); }

LogIndex ChangeLogImpl::last_index() const {
  absl::ReaderMutexLock lock(&mu_);
  return last_;
}

LogIndex ChangeLogImpl::synced_index() const {
  absl::ReaderMutexLock lock(&mu_);
  return synced_;
}

Term ChangeLogImpl::last_term() const {
  absl::ReaderMutexLock lock(&mu_);
  return last_term_;
}

absl::StatusOr<Term> ChangeLogImpl::TermAt(LogIndex index) const {
  {
    absl::ReaderMutexLock lock(&mu_);
    if (index > last_ || index < FirstLocked().Previous()) {
      return absl::OutOfRangeError(
          fmt::format("the term of entry {} is not known: the log has {} to {}", index.value,
                      FirstLocked().value, last_.value));
    }
    // Terms only grow: a segment that starts and ends in one term has no other.
    for (std::size_t i = slots_.size(); i-- > 0;) {
      const SegmentHeader& header = slots_[i].segment->header();
      if (index < header.base) continue;
      const Term end_term =
          i + 1 < slots_.size() ? slots_[i + 1].segment->header().base_term : last_term_;
      if (index == header.base || header.base_term == end_term) return header.base_term;
      break;
    }
    if (index == last_) return last_term_;
  }
  ECHOFS_ASSIGN_OR_RETURN(const std::optional<LogEntry> entry, Read(index)->Next());
  if (!entry.has_value()) {
    return absl::OutOfRangeError(fmt::format("entry {} is no longer in the log", index.value));
  }
  return entry->term;
}

std::uint64_t ChangeLogImpl::size_bytes() const {
  absl::ReaderMutexLock lock(&mu_);
  std::uint64_t size = 0;
  for (const SegmentSlot& slot : slots_) size += slot.end;
  return size;
}

absl::StatusOr<DatabasePosition> ChangeLogImpl::Position(const std::string& database) const {
  absl::ReaderMutexLock lock(&mu_);
  const DatabasePosition* position = catalog_.Find(database);
  if (position == nullptr) {
    return absl::NotFoundError(fmt::format("the log knows no database {}", database));
  }
  return *position;
}

std::vector<DatabasePosition> ChangeLogImpl::Positions() const {
  absl::ReaderMutexLock lock(&mu_);
  return catalog_.Positions();
}

LogState ChangeLogImpl::State() const {
  absl::ReaderMutexLock lock(&mu_);
  return {last_, last_term_, catalog_.Positions()};
}

TermHistory ChangeLogImpl::Terms() const {
  absl::ReaderMutexLock lock(&mu_);
  return terms_;
}

std::unique_ptr<LogReader> ChangeLogImpl::Read(LogIndex from) const {
  return MakeLogReader(this, from);
}

LogIndex ChangeLogImpl::WaitForIndex(LogIndex index, absl::Time deadline) const {
  absl::MutexLock lock(&mu_);
  while (last_ < index) {
    if (committed_.WaitWithDeadline(&mu_, deadline)) break;
  }
  return last_;
}

absl::StatusOr<std::optional<ReadableLog::Span>> ChangeLogImpl::Locate(LogIndex index) const {
  absl::ReaderMutexLock lock(&mu_);
  if (index == last_.Next()) return std::optional<Span>();
  if (index > last_ || index < FirstLocked()) {
    return absl::OutOfRangeError(fmt::format("entry {} is not in the log, which has {} to {}",
                                             index.value, FirstLocked().value, last_.value));
  }
  // The last slot whose base is before the index.
  const auto next =
      std::partition_point(slots_.begin(), slots_.end(),
                           [&](const SegmentSlot& slot) { return slot.segment->base() < index; });
  const SegmentSlot& slot = *std::prev(next);
  return Span{slot.segment, next == slots_.end() ? last_ : next->segment->base(), slot.end};
}

std::uint64_t ChangeLogImpl::truncations() const {
  return truncation_count_.load(std::memory_order_acquire);
}

absl::StatusOr<std::uint64_t> ChangeLogImpl::CheckKept(LogIndex index, std::uint64_t since) const {
  absl::ReaderMutexLock lock(&mu_);
  for (std::uint64_t i = since; i < truncations_.size(); ++i) {
    if (truncations_[i].everything || index > truncations_[i].kept) {
      return absl::OutOfRangeError(
          fmt::format("entry {} is no longer in the log: it was truncated", index.value));
    }
  }
  return truncations_.size();
}

LogIndex ChangeLogImpl::readable_from() const {
  return {readable_from_.load(std::memory_order_acquire)};
}

std::int64_t ChangeLogImpl::NowMs() const { return absl::ToUnixMillis(options_.now()); }

}  // namespace echofs
