// Taking entries away from a log: truncation, reset, retention.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "replication/change_log_impl.h"
#include "replication/failpoint.h"
#include "replication/log_scan.h"
#include "replication/status_macros.h"

namespace echofs {
namespace {

// What `terms` say up to the base, if they can be those of a log with this base.
TermHistory TermsBefore(const SegmentHeader& header, TermHistory terms) {
  terms.CutAfter(header.base);
  const bool fits = !terms.starts().empty() && terms.starts().back().term == header.base_term;
  return fits ? terms : TermHistory::FromBase(header.base, header.base_term);
}

}  // namespace

absl::Status ChangeLogImpl::TruncateAfter(LogIndex index) {
  Hold cut(this, &cut_held_);
  Hold write(this, &write_held_);
  Hold sync(this, &sync_held_);
  return TruncateLocked(index);
}

absl::Status ChangeLogImpl::TruncateLocked(LogIndex index) {
  CutState next;
  LogIndex synced;
  std::uint64_t rewrite_from = 0;  // 0: nothing is to be written again
  {
    absl::MutexLock lock(&mu_);
    ECHOFS_RETURN_IF_ERROR(broken_);
    if (index > last_ || index < FirstLocked().Previous()) {
      return absl::OutOfRangeError(
          fmt::format("the log cannot be truncated after entry {}: it has {} to {}", index.value,
                      FirstLocked().value, last_.value));
    }
    if (index == last_) return absl::OkStatus();
    next.slots = slots_;
    synced = synced_;
    if (sync_failed_) rewrite_from = synced_offset_;
  }
  while (next.slots.back().segment->base() > index) {
    next.slots.pop_back();
    rewrite_from = 0;  // older segments are on disk
  }
  SegmentSlot& slot = next.slots.back();
  const std::string path = slot.segment->path();
  ECHOFS_ASSIGN_OR_RETURN(next.file, options_.storage->Open(path, {}));
  OpenOptions read_only;
  read_only.read_only = true;
  ECHOFS_ASSIGN_OR_RETURN(std::unique_ptr<File> file, options_.storage->Open(path, read_only));
  ECHOFS_ASSIGN_OR_RETURN(SegmentStart start, ReadSegmentStart(*file, path));
  ScanState state{std::move(start.catalog), std::move(start.terms), start.header.base,
                  start.header.base_term, start.data_start};
  BufferedFile buffered(std::move(file), path);
  slot.segment = slot.segment->CutAfter(index);
  ECHOFS_RETURN_IF_ERROR(ScanRecords(buffered, slot.end, index, false, slot.segment.get(), &state));
  if (state.last != index) {
    return DamagedRecord(path, state.offset,
                         fmt::format("the segment ends after entry {}", state.last.value));
  }
  Failpoint("log.cut.before");
  ECHOFS_RETURN_IF_ERROR(watermark_->WriteDurably(std::min(index, synced)));
  Failpoint("log.cut_watermark.after");

  slot.end = state.offset;
  next.catalog = std::move(state.catalog);
  next.terms = std::move(state.terms);
  next.last = index;
  next.last_term = state.last_term;
  next.truncation = {index, false};
  const std::shared_ptr<File> kept_file = next.file;
  const LogIndex kept_base = slot.segment->base();
  Adopt(std::move(next));
  if (absl::Status status = RemoveSegments(options_.storage, directory_, kept_base.Next());
      !status.ok()) {
    return Break(std::move(status));
  }
  Failpoint("log.cut_file.before");
  if (absl::Status status = CutFile(kept_file.get(), path, rewrite_from, state.offset);
      !status.ok()) {
    return Break(std::move(status));
  }
  Failpoint("log.cut.after");
  AdoptSynced();
  return absl::OkStatus();
}

absl::Status ChangeLogImpl::CutFile(File* file, const std::string& path, std::uint64_t rewrite_from,
                                    std::uint64_t end) {
  ECHOFS_RETURN_IF_ERROR(file->Truncate(end));
  if (rewrite_from == 0 || rewrite_from >= end) return file->Sync();
  return RewriteAndSync(options_.storage, file, path, rewrite_from, end);
}

absl::Status ChangeLogImpl::Reset(LogIndex base, Term base_term,
                                  const std::vector<DatabasePosition>& catalog,
                                  const TermHistory& terms) {
  ECHOFS_ASSIGN_OR_RETURN(LogCatalog databases, LogCatalog::FromPositions(catalog));
  SegmentHeader header;
  header.base = base;
  header.base_term = base_term;
  header.created_ms = NowMs();
  Hold cut(this, &cut_held_);
  Hold write(this, &write_held_);
  Hold sync(this, &sync_held_);
  return ResetLocked(header, std::move(databases), TermsBefore(header, terms));
}

absl::Status ChangeLogImpl::ResetLocked(const SegmentHeader& header, LogCatalog catalog,
                                        TermHistory terms) {
  {
    absl::MutexLock lock(&mu_);
    ECHOFS_RETURN_IF_ERROR(broken_);
  }
  Storage* storage = options_.storage;
  const std::string temporary = PathOf(kNewSegmentName);
  const std::string reset = PathOf(kResetSegmentName);
  std::uint64_t data_start = 0;
  absl::StatusOr<std::unique_ptr<File>> file =
      WriteSegmentFile(storage, temporary, header, catalog, terms, &data_start);
  if (!file.ok()) {
    (void)storage->Remove(temporary);
    return file.status();
  }
  Failpoint("log.reset.before");
  ECHOFS_RETURN_IF_ERROR(storage->Rename(temporary, reset));
  if (absl::Status status = storage->SyncDirectory(directory_); !status.ok()) {
    // Whether the reset is to be done must be certain.
    return storage->Remove(reset).ok() ? status : Break(std::move(status));
  }
  Failpoint("log.reset_rename.after");
  CutState next;
  next.slots.push_back({std::make_shared<LogSegment>(
                            directory_ + "/" + SegmentFileName(header.base), header, data_start),
                        data_start});
  next.file = *std::move(file);
  next.catalog = std::move(catalog);
  next.terms = std::move(terms);
  next.last = header.base;
  next.last_term = header.base_term;
  next.truncation = {header.base, true};
  Adopt(std::move(next));
  if (absl::Status status = FinishReset(storage, directory_, header.base, watermark_.get());
      !status.ok()) {
    return Break(std::move(status));
  }
  AdoptSynced();
  return absl::OkStatus();
}

void ChangeLogImpl::Adopt(CutState state) {
  absl::MutexLock lock(&mu_);
  slots_ = std::move(state.slots);
  file_ = std::move(state.file);
  catalog_ = std::move(state.catalog);
  terms_ = std::move(state.terms);
  last_ = state.last;
  last_term_ = state.last_term;
  synced_ = std::min(synced_, last_);
  tail_dirty_ = false;
  truncations_.push_back(state.truncation);
  readable_from_.store(FirstLocked().value, std::memory_order_release);
  truncation_count_.store(truncations_.size(), std::memory_order_release);
}

void ChangeLogImpl::AdoptSynced() {
  absl::MutexLock lock(&mu_);
  synced_ = last_;
  synced_offset_ = slots_.back().end;
  sync_failed_ = false;
}

absl::Status ChangeLogImpl::Break(absl::Status status) {
  absl::MutexLock lock(&mu_);
  broken_ =
      absl::Status(status.code(),
                   fmt::format("the log {} must be opened again (restart echofs): {}", directory_,
                               std::string_view(status.message().data(), status.message().size())));
  return status;
}

absl::Status ChangeLogImpl::Retain(LogIndex needed) {
  Hold cut(this, &cut_held_);
  for (;;) {
    SegmentSlot oldest;
    {
      absl::MutexLock lock(&mu_);
      ECHOFS_RETURN_IF_ERROR(broken_);
      // The base of the second segment is the last entry of the first one.
      if (slots_.size() < 2 || slots_[1].segment->base() >= needed) return absl::OkStatus();
      std::uint64_t old_size = 0;
      for (std::size_t i = 0; i + 1 < slots_.size(); ++i) old_size += slots_[i].end;
      const absl::Time complete = absl::FromUnixMillis(slots_[1].segment->header().created_ms);
      const bool too_old = options_.now() - complete > options_.retention_age;
      if (!too_old && old_size <= options_.retention_size) return absl::OkStatus();
      oldest = slots_.front();
      slots_.erase(slots_.begin());
      readable_from_.store(FirstLocked().value, std::memory_order_release);
    }
    Failpoint("log.retain.before");
    const absl::Status status = options_.storage->Remove(oldest.segment->path());
    if (!status.ok() && !absl::IsNotFound(status)) {
      absl::MutexLock lock(&mu_);
      slots_.insert(slots_.begin(), oldest);
      readable_from_.store(FirstLocked().value, std::memory_order_release);
      return status;
    }
    ECHOFS_RETURN_IF_ERROR(options_.storage->SyncDirectory(directory_));
    Failpoint("log.retain.after");
  }
}

}  // namespace echofs
