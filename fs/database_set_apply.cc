// What replication sees of the databases (ApplyTarget), and how each of them becomes a replica's.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <filesystem>
#include <memory>
#include <utility>

#include "fs/database_set.h"
#include "fs/mount_replica_files.h"
#include "replication/failpoint.h"
#include "replication/status_macros.h"

namespace echofs::fs {

std::shared_ptr<ReplicaDatabase> DatabaseSet::FindReplica(const std::string& name) {
  const std::shared_ptr<Database> database = Find(name);
  return database ? database->replica() : nullptr;
}

absl::StatusOr<std::shared_ptr<ReplicaDatabase>> DatabaseSet::OpenReplica(
    const std::string& name, const DatabasePosition& position, int* blocked_by_pid) {
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Database> database, OpenMain(name));
  // It has a capture when a writer was in the way as this node became a replica.
  WriterLocks locks;
  ECHOFS_ASSIGN_OR_RETURN(const bool stopped, StopWriter(*database, &locks));
  if (!stopped) return absl::UnavailableError(fmt::format("{}: a writer is still inside", name));
  ECHOFS_RETURN_IF_ERROR(AttachReplica(*database, position, std::move(locks), blocked_by_pid));
  return database->replica();
}

absl::Status DatabaseSet::AttachReplica(Database& database, const DatabasePosition& position,
                                        WriterLocks locks, int* blocked_by_pid) {
  auto files = std::make_unique<MountReplicaFiles>(
      MountReplicaFilesOptions{database.name(), options_.root, mount_point_,
                               options_.temporary_directory, options_.storage, cache_},
      std::move(locks));
  ECHOFS_ASSIGN_OR_RETURN(
      std::shared_ptr<ReplicaDatabase> replica,
      ReplicaDatabase::Create(std::move(files), cache_, position, replica_options_));
  // From now on it serves the -shm, which it is about to change under those who have it mapped.
  database.SetReplica(replica);
  absl::Status joined = replica->Join(blocked_by_pid);
  if (joined.ok()) {
    database.SetCapture(nullptr);
  } else {
    database.SetReplica(nullptr);
  }
  return joined;
}

absl::StatusOr<std::shared_ptr<ReplicaDatabase>> DatabaseSet::FindOrOpenReplica(
    const std::string& name, ApplyOutcome* blocked) {
  if (auto replica = FindReplica(name)) return replica;
  DatabasePosition position;
  position.name = name;
  const auto database = Find(name);
  if (const auto capture = database ? database->capture() : nullptr) {
    // An application was in the way when this node became a replica.
    position = capture->position();
  } else if (const auto applied = positions_->Get(name)) {
    const auto reached = PositionAt(name, applied->index);
    if (reached.ok()) position = *reached;
  }
  auto replica = OpenReplica(name, position, &blocked->blocked_by_pid);
  if (absl::IsUnavailable(replica.status())) {
    blocked->kind = ApplyOutcome::Kind::kBlocked;
    return std::shared_ptr<ReplicaDatabase>();
  }
  return replica;
}

absl::StatusOr<DatabasePosition> DatabaseSet::AppliedPosition(const std::string& database) {
  const std::shared_ptr<Database> found = Find(database);
  if (const auto capture = found ? found->capture() : nullptr) {
    DatabasePosition position = capture->position();
    if (position.txid != Txid{} && !position.dropped) return position;
  } else if (!read_only()) {
    const DatabasePosition position = LoggedPosition(database);
    if (position.txid != Txid{} && !position.dropped) return position;
  } else if (const auto replica = found ? found->replica() : nullptr) {
    DatabasePosition position = replica->position();
    if (position.txid != Txid{}) return position;
  }
  return absl::NotFoundError(fmt::format("there is no local copy of {}", database));
}

std::vector<std::string> DatabaseSet::LocalDatabases() {
  std::vector<std::string> names;
  absl::MutexLock lock(&mutex_);
  for (const auto& [name, database] : databases_) {
    if (database->IsDatabase()) names.push_back(name);
  }
  return names;
}

absl::StatusOr<ApplyOutcome> DatabaseSet::RunStep(const std::string& name, const ApplyStep& step) {
  if (!read_only()) return absl::FailedPreconditionError("this node is the primary");
  ApplyOutcome blocked;
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<ReplicaDatabase> replica,
                          FindOrOpenReplica(name, &blocked));
  if (!replica) return blocked;
  ECHOFS_ASSIGN_OR_RETURN(const ApplyOutcome outcome, step(*replica));
  if (outcome.kind != ApplyOutcome::Kind::kBlocked || !replica->ReadersAreOverdue()) return outcome;
  return ReplaceUnderReaders(name, step);
}

// The new files get inodes of their own; who has the old ones open stays with them and with the old Database,
// which serves the old -shm from memory, and is then told to fail.
absl::StatusOr<ApplyOutcome> DatabaseSet::ReplaceUnderReaders(const std::string& name,
                                                              const ApplyStep& step) {
  const std::shared_ptr<Database> old = Find(name);
  const std::shared_ptr<ReplicaDatabase> old_replica = old->replica();
  DatabasePosition start;  // without files, and followed by the same entry
  start.name = name;
  start.txid = old_replica->position().txid;
  start.digest = old_replica->position().digest;
  {
    absl::MutexLock lock(&mutex_);
    databases_[name] = std::make_shared<Database>(name, nullptr, /*replicated=*/true);
  }
  int blocked_by_pid = 0;
  absl::StatusOr<ApplyOutcome> outcome;
  const auto replica = OpenReplica(name, start, &blocked_by_pid);
  outcome = replica.ok() ? step(**replica) : replica.status();
  if (!outcome.ok() || outcome->kind != ApplyOutcome::Kind::kApplied) {
    absl::MutexLock lock(&mutex_);
    databases_[name] = old;
    return outcome;
  }
  spdlog::warn(
      "{}: process {} kept the database open for longer than replication.reader-timeout while its "
      "page size "
      "changed; connections from before fail with a disk I/O error and have to be opened anew",
      name, old_replica->status().blocked_by_pid);
  old->SetRetired();
  const absl::Status retired = old_replica->Retire();
  if (!retired.ok()) spdlog::error("{}: {}", name, std::string(retired.message()));
  return outcome;
}

absl::StatusOr<ApplyOutcome> DatabaseSet::Apply(const LogEntry& entry, ByteSource& payload) {
  ECHOFS_ASSIGN_OR_RETURN(const ApplyOutcome outcome,
                          RunStep(entry.database, [&](ReplicaDatabase& replica) {
                            return replica.Apply(entry, payload);
                          }));
  if (outcome.kind != ApplyOutcome::Kind::kApplied) return outcome;
  if (entry.kind == EntryKind::kDrop) {
    ECHOFS_RETURN_IF_ERROR(positions_->Remove(entry.database));
    Failpoint("apply.drop.after");
    if (const auto database = Find(entry.database)) Forget(*database);
    return outcome;
  }
  Failpoint("apply.position.before");
  ECHOFS_RETURN_IF_ERROR(positions_->Set(entry.database, entry.index, entry.txid));
  Failpoint("apply.position.after");
  return outcome;
}

absl::StatusOr<ApplyOutcome> DatabaseSet::Join(const std::string& database) {
  return RunStep(database,
                 [](ReplicaDatabase&) -> absl::StatusOr<ApplyOutcome> { return ApplyOutcome{}; });
}

absl::StatusOr<ApplyOutcome> DatabaseSet::InstallCopy(const DatabasePosition& position,
                                                      const std::string& file) {
  ECHOFS_ASSIGN_OR_RETURN(const ApplyOutcome outcome,
                          RunStep(position.name, [&](ReplicaDatabase& replica) {
                            return replica.InstallCopy(position, file);
                          }));
  if (outcome.kind == ApplyOutcome::Kind::kApplied) {
    Failpoint("copy.position.before");
    ECHOFS_RETURN_IF_ERROR(positions_->Set(position.name, position.index, position.txid));
    Failpoint("copy.position.after");
  }
  return outcome;
}

absl::StatusOr<ApplyOutcome> DatabaseSet::InstallPages(const DatabasePosition& position,
                                                       const std::string& file,
                                                       const PageSet& pages) {
  Failpoint("rewind.install.before");
  ECHOFS_ASSIGN_OR_RETURN(const ApplyOutcome outcome,
                          RunStep(position.name, [&](ReplicaDatabase& replica) {
                            return replica.InstallPages(position, file, pages);
                          }));
  if (outcome.kind == ApplyOutcome::Kind::kApplied) {
    Failpoint("rewind.position.before");
    ECHOFS_RETURN_IF_ERROR(positions_->Set(position.name, position.index, position.txid));
    Failpoint("rewind.position.after");
  }
  return outcome;
}

// A slot is an index of the log, and recovery believes what the log says about that entry; see log_rewind.h. The
// synced index goes with it.
absl::Status DatabaseSet::ForgetPositions(const std::vector<std::string>& databases) {
  if (databases.empty()) return absl::OkStatus();
  for (const std::string& name : databases) ECHOFS_RETURN_IF_ERROR(positions_->Remove(name));
  return positions_->Sync();
}

absl::Status DatabaseSet::EndTurn(const std::string& database) {
  const auto replica = FindReplica(database);
  return replica ? replica->EndTurn() : absl::OkStatus();
}

absl::StatusOr<PageRun> DatabaseSet::ReadPages(const std::string& database, PageNumber first,
                                               std::uint32_t count) {
  if (const auto replica = FindReplica(database)) return replica->ReadPages(first, count);
  if (read_only()) return absl::NotFoundError(fmt::format("there is no database {}", database));
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Database> found, OpenMain(database));
  const auto capture = found->capture();
  if (!capture) return absl::UnavailableError(fmt::format("the role of {} changes", database));
  return capture->ReadPages(first, count);
}

absl::Status DatabaseSet::SyncAll() {
  if (!read_only()) return SyncCaptured();
  for (const auto& database : All()) {
    const auto replica = database->replica();
    if (!replica) continue;
    const std::uint64_t generation = positions_->Generation(database->name());
    const DatabasePosition position = replica->position();
    const auto applied = positions_->Get(position.name);
    if (!applied || applied->synced_index >= position.index) continue;
    Failpoint("apply.sync_files.before");
    ECHOFS_RETURN_IF_ERROR(replica->SyncFiles());
    Failpoint("apply.sync_files.after");
    ECHOFS_RETURN_IF_ERROR(positions_->SetSynced(position.name, position.index, generation));
  }
  ECHOFS_RETURN_IF_ERROR(positions_->Sync());
  Failpoint("apply.sync_positions.after");
  return absl::OkStatus();
}

// What the log says of a database is in its file or its WAL, but applications sync these only as their settings want.
absl::Status DatabaseSet::SyncCaptured() {
  const std::uint64_t term = term_;
  for (const DatabasePosition& position : options_.log->Positions()) {
    auto& synced = synced_captures_[position.name];
    const std::pair present(term, position.index);
    if (position.dropped || synced == present) continue;
    const std::string path = options_.root + "/" + position.name;
    for (const std::string_view suffix : {std::string_view(), sqlite::kWalSuffix}) {
      const auto file = options_.storage->Open(path + std::string(suffix), {});
      if (absl::IsNotFound(file.status())) continue;
      ECHOFS_RETURN_IF_ERROR(file.status());
      ECHOFS_RETURN_IF_ERROR((*file)->Sync());
    }
    ECHOFS_RETURN_IF_ERROR(
        options_.storage->SyncDirectory(std::filesystem::path(path).parent_path().string()));
    synced = present;
  }
  return absl::OkStatus();
}

}  // namespace echofs::fs
