// Whole databases on a replica: copies, and files that take the place of others.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <utility>

#include "fs/replica_database.h"
#include "replication/failpoint.h"
#include "replication/status_macros.h"

namespace echofs::fs {

using sqlite::FileRole;

absl::StatusOr<ApplyOutcome> ReplicaDatabase::InstallCopy(const DatabasePosition& position,
                                                          const std::string& file) {
  if (closed_) return absl::FailedPreconditionError("the database was closed for a role change");
  if (!IsValidPageSize(position.page_size) || position.dropped) {
    return absl::InvalidArgumentError("the position of a copy names no database");
  }
  ECHOFS_ASSIGN_OR_RETURN(const JournalApply::Attempt attempt,
                          MakeReady(position.page_size, JournalApply::Turn::kAny));
  if (!attempt.held) return NotReady(attempt);
  Target target;
  target.position = position;
  target.follows = false;
  const absl::Status written = WriteCopy(file, target);
  if (!written.ok()) {
    if (journal_ != nullptr && !damaged_) ECHOFS_RETURN_IF_ERROR(journal_->Unlock());
    return written;
  }
  damaged_ = false;
  {
    absl::MutexLock lock(&mutex_);
    status_.stopped = absl::OkStatus();
  }
  ECHOFS_RETURN_IF_ERROR(EndTurn());
  return ApplyOutcome{};
}

absl::StatusOr<ApplyOutcome> ReplicaDatabase::InstallPages(const DatabasePosition& position,
                                                           const std::string& file,
                                                           const PageSet& pages) {
  if (closed_) return absl::FailedPreconditionError("the database was closed for a role change");
  ECHOFS_RETURN_IF_ERROR(status().stopped);
  if (!Exists() || position.dropped || position.page_size != this->position().page_size) {
    return absl::DataLossError("there is no database that single pages would fit");
  }
  ECHOFS_ASSIGN_OR_RETURN(const JournalApply::Attempt attempt,
                          MakeReady(position.page_size, JournalApply::Turn::kAny));
  if (!attempt.held) return NotReady(attempt);
  Target target;
  target.position = position;
  target.follows = false;
  const absl::Status written = WritePatch(file, pages, target);
  if (!written.ok()) {
    if (journal_ != nullptr && !damaged_) ECHOFS_RETURN_IF_ERROR(journal_->Unlock());
    return written;
  }
  ECHOFS_RETURN_IF_ERROR(EndTurn());
  return ApplyOutcome{};
}

absl::Status ReplicaDatabase::WritePatch(const std::string& file, const PageSet& pages,
                                         const Target& target) {
  OpenOptions options;
  options.read_only = true;
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<File> patch,
                          files_->storage()->Open(file, options));
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<ChangeStream> stream,
                          OpenPages(patch.get(), &pages, target.position.page_size,
                                    target.position.page_count, Base()));
  return Write(*stream, target);
}

absl::Status ReplicaDatabase::WriteCopy(const std::string& file, const Target& target) {
  OpenOptions options;
  options.read_only = true;
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<File> copy, files_->storage()->Open(file, options));
  ECHOFS_ASSIGN_OR_RETURN(
      const std::unique_ptr<ChangeStream> stream,
      OpenCopy(copy.get(), target.position.page_size, target.position.page_count, Base()));
  if (Exists()) {
    ECHOFS_RETURN_IF_ERROR(Write(*stream, target));
    const absl::Status removed = files_->storage()->Remove(file);
    if (!removed.ok()) spdlog::warn("cannot remove {}: {}", file, removed.ToString());
    return absl::OkStatus();
  }
  std::optional<ChangeStream::Page> page;
  do {
    ECHOFS_ASSIGN_OR_RETURN(page, stream->Next());
  } while (page);
  ECHOFS_RETURN_IF_ERROR(CheckDigest(*stream, target));
  ECHOFS_RETURN_IF_ERROR(copy->Sync());
  return AdoptFile(file, target);
}

absl::Status ReplicaDatabase::WriteNew(ChangeStream& stream, const Target& target) {
  const std::string path = files_->TemporaryPath();
  OpenOptions options;
  options.create = true;
  options.exclusive = true;
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<File> file, files_->storage()->Open(path, options));
  const std::uint64_t page_size = target.position.page_size;
  const auto fill = [&]() -> absl::Status {
    while (true) {
      ECHOFS_ASSIGN_OR_RETURN(const std::optional<ChangeStream::Page> page, stream.Next());
      if (!page) break;
      ECHOFS_RETURN_IF_ERROR(file->WriteAt((page->number - 1) * page_size, page->content));
    }
    ECHOFS_RETURN_IF_ERROR(CheckDigest(stream, target));
    ECHOFS_RETURN_IF_ERROR(file->Truncate(target.position.page_count * page_size));
    ECHOFS_RETURN_IF_ERROR(file->Sync());
    Failpoint("apply.new_file.after");
    return absl::OkStatus();
  };
  absl::Status status = fill();
  if (status.ok()) status = AdoptFile(path, target);
  if (!status.ok()) files_->storage()->Remove(path).IgnoreError();
  return status;
}

absl::Status ReplicaDatabase::AdoptFile(const std::string& path, const Target& target) {
  ECHOFS_RETURN_IF_ERROR(options_.sync_log(target.position.index));
  // Left-overs of an earlier database of this name would be read as this one's. The main file first: nobody
  // may open a database whose WAL is already missing.
  ECHOFS_RETURN_IF_ERROR(files_->Remove(FileRole::kMain));
  ECHOFS_RETURN_IF_ERROR(files_->Remove(FileRole::kJournal));
  ECHOFS_RETURN_IF_ERROR(files_->Remove(FileRole::kWal));
  ECHOFS_RETURN_IF_ERROR(files_->Remove(FileRole::kShm));
  ECHOFS_RETURN_IF_ERROR(files_->Adopt(path, target.position.attributes));
  SetPosition(target.position);
  int pid = 0;
  absl::Status attached = Attach(&pid);
  UpdateStatus();
  if (attached.ok()) return attached;
  spdlog::warn("{} is in place, but its locks are not yet ours: {}", target.position.name,
               attached.ToString());
  return absl::IsUnavailable(attached) ? absl::OkStatus() : Stop(attached);
}

}  // namespace echofs::fs
