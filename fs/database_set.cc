#include "fs/database_set.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "replication/status_macros.h"

namespace echofs::fs {
namespace {

// How long a start tries to get the locks of a database that applications have open already.
constexpr absl::Duration kJoinMax = absl::Seconds(2);
constexpr absl::Duration kJoinPoll = absl::Milliseconds(1);

}  // namespace

DatabaseSet::DatabaseSet(const DatabaseSetOptions& options,
                         std::unique_ptr<AppliedPositions> positions)
    : options_(options), read_only_(options.read_only), positions_(std::move(positions)) {
  replica_options_.reader_timeout = options.reader_timeout;
  replica_options_.sync_log = [log = options.log](LogIndex index) {
    return log->Sync(std::min(index, log->last_index()));
  };
  replica_options_.metrics = options.metrics;
  term_ = RecoveryTerm(options.log->last_term()).value;  // until this node leads
}

DatabaseSet::~DatabaseSet() = default;

absl::StatusOr<std::unique_ptr<DatabaseSet>> DatabaseSet::Open(const DatabaseSetOptions& options) {
  ECHOFS_RETURN_IF_ERROR(options.storage->MakeDirectories(options.root));
  ECHOFS_ASSIGN_OR_RETURN(std::unique_ptr<AppliedPositions> positions,
                          AppliedPositions::Open(options.storage, options.positions_file));
  std::unique_ptr<DatabaseSet> set(new DatabaseSet(options, std::move(positions)));
  set->captures_ =
      !options.was_replica;  // what the primary left is taken into its log, whatever comes next
  ECHOFS_RETURN_IF_ERROR(options.was_replica ? set->RecoverReplica() : set->RecoverPrimary());
  ECHOFS_RETURN_IF_ERROR(options.read_only ? set->FinishAsReplica() : set->FinishAsPrimary());
  set->captures_ = !options.read_only;
  set->recovering_ = false;
  return set;
}

absl::Status DatabaseSet::Start(PageCache* cache, const std::string& mount_point) {
  cache_ = cache;
  mount_point_ = mount_point;
  if (!read_only()) return absl::OkStatus();
  for (const DatabasePosition& logged : options_.log->Positions()) {
    if (logged.dropped) continue;
    const std::optional<fs::AppliedPosition> applied = positions_->Get(logged.name);
    if (!applied) continue;  // replication copies it
    const absl::StatusOr<DatabasePosition> position = PositionAt(logged.name, applied->index);
    if (!position.ok()) continue;
    const absl::Status opened = JoinAtStart(logged.name, *position);
    if (!opened.ok()) {
      spdlog::error("{}: cannot be opened as a replica and will be copied again: {}", logged.name,
                    std::string(opened.message()));
      ECHOFS_RETURN_IF_ERROR(positions_->Remove(logged.name));
    }
  }
  return absl::OkStatus();
}

// The mount serves applications already. What one of them wants to write is refused (Database::IsDatabase), so that a lock
// which is in the way now is soon gone.
absl::Status DatabaseSet::JoinAtStart(const std::string& name, const DatabasePosition& position) {
  const absl::Time deadline = absl::Now() + kJoinMax;
  while (true) {
    int blocked_by_pid = 0;
    absl::Status joined = OpenReplica(name, position, &blocked_by_pid).status();
    if (!absl::IsUnavailable(joined) || absl::Now() >= deadline) return joined;
    absl::SleepFor(kJoinPoll);
  }
}

void DatabaseSet::Stop() {
  for (const auto& database : All()) {
    if (const auto capture = database->capture()) {
      const absl::Status drained = capture->Drain();
      if (!drained.ok()) {
        spdlog::warn("{}: commits remain in the WAL and are taken at the next start: {}",
                     database->name(), std::string(drained.message()));
      }
    }
    if (const auto replica = database->replica()) {
      const absl::Status closed = replica->Close();
      if (!closed.ok()) spdlog::warn("{}: {}", database->name(), std::string(closed.message()));
      // It stays: the mount goes on for a moment, and now that the locks do not keep writers out any more, what they
      // write is refused.
    }
  }
  if (read_only()) {
    const absl::Status synced = positions_->Sync();
    if (!synced.ok()) spdlog::warn("{}", std::string(synced.message()));
  }
}

std::string DatabaseSet::MainPath(const std::string& path) {
  return std::string(sqlite::ClassifyFileName(path).database);
}

std::shared_ptr<Database> DatabaseSet::Find(const std::string& path) {
  absl::MutexLock lock(&mutex_);
  const auto it = databases_.find(path);
  return it == databases_.end() ? nullptr : it->second;
}

std::vector<std::shared_ptr<Database>> DatabaseSet::All() {
  std::vector<std::shared_ptr<Database>> all;
  absl::MutexLock lock(&mutex_);
  for (const auto& [name, database] : databases_) all.push_back(database);
  return all;
}

DatabasePosition DatabaseSet::LoggedPosition(const std::string& database) {
  absl::StatusOr<DatabasePosition> position = options_.log->Position(database);
  if (position.ok()) {
    // Applied here as a replica, the entry knows another node's WAL.
    const std::optional<fs::AppliedPosition> applied = positions_->Get(database);
    if (applied && applied->index == position->index) position->wal = applied->wal;
    return *position;
  }
  DatabasePosition none;
  none.name = database;
  return none;
}

absl::StatusOr<std::shared_ptr<DatabaseCapture>> DatabaseSet::NewCapture(
    const std::string& path, const DatabasePosition& position) {
  absl::StatusOr<std::unique_ptr<File>> file =
      options_.storage->Open(options_.root + "/" + path, {});
  if (!file.ok()) {
    OpenOptions no_writes;
    no_writes.read_only = true;
    file = options_.storage->Open(options_.root + "/" + path, no_writes);
  }
  if (!file.ok()) return file.status();
  // The queue keeps the capture alive while it has work; the capture does not keep itself.
  auto self = std::make_shared<std::weak_ptr<DatabaseCapture>>();
  CaptureContext context;
  context.log = options_.log;
  context.term = [this] { return Term{term_.load(std::memory_order_acquire)}; };
  context.acknowledged = options_.acks != nullptr;
  context.acknowledged_always = context.acknowledged && options_.acknowledge_always;
  if (options_.fence != nullptr) {
    context.may_commit = [this] { return recovering_ || options_.fence->open(); };
  }
  context.metrics = options_.metrics;
  context.wake = [this, self] {
    if (auto locked = self->lock()) queue_.Add(std::move(locked));
  };
  auto capture = std::make_shared<DatabaseCapture>(path, position, std::move(context));
  *self = capture;
  ECHOFS_RETURN_IF_ERROR(capture->SetFile(FileRole::kMain, *std::move(file)));
  return capture;
}

absl::StatusOr<std::shared_ptr<Database>> DatabaseSet::OpenMain(const std::string& path) {
  if (auto database = Find(path)) return database;
  std::shared_ptr<DatabaseCapture> capture;
  bool replicated = false;
  if (captures_) {
    ECHOFS_ASSIGN_OR_RETURN(capture, NewCapture(path, LoggedPosition(path)));
    if (writers_stopped_) ECHOFS_RETURN_IF_ERROR(capture->Fence());
  } else {
    const absl::StatusOr<DatabasePosition> position = options_.log->Position(path);
    replicated = position.ok() && !position->dropped;
  }
  absl::MutexLock lock(&mutex_);
  std::shared_ptr<Database>& database = databases_[path];
  if (!database) database = std::make_shared<Database>(path, std::move(capture), replicated);
  return database;
}

void DatabaseSet::Forget(Database& database) {
  database.SetRemoved();
  absl::MutexLock lock(&mutex_);
  const auto it = databases_.find(database.name());
  if (it != databases_.end() && it->second.get() == &database) databases_.erase(it);
}

bool DatabaseSet::IsDatabase(const std::string& path) {
  if (const auto database = Find(path)) return database->IsDatabase();
  if (!captures_) return false;
  const absl::StatusOr<DatabasePosition> position = options_.log->Position(path);
  return position.ok() && !position->dropped;
}

bool DatabaseSet::HasDatabaseBelow(const std::string& directory) {
  for (const DatabasePosition& position : options_.log->Positions()) {
    if (!position.dropped && position.name.starts_with(directory + "/")) return true;
  }
  return false;
}

void DatabaseSet::LogOnce(const std::string& message) {
  {
    absl::MutexLock lock(&mutex_);
    if (!said_.insert(message).second) return;
  }
  spdlog::warn("{}", message);
}

void DatabaseSet::LogLocalFile(const std::string& path) {
  {
    absl::MutexLock lock(&mutex_);
    if (!said_.insert(path).second) return;
  }
  spdlog::info("{} is not a SQLite database: it stays on this node and is not replicated", path);
}

std::vector<DatabaseState> DatabaseSet::States() {
  std::vector<DatabaseState> states;
  for (DatabasePosition& logged : options_.log->Positions()) {
    if (logged.dropped) continue;
    DatabaseState state;
    const std::shared_ptr<Database> database = Find(logged.name);
    state.position = std::move(logged);
    if (const auto capture = database ? database->capture() : nullptr) {
      state.wal_mode = capture->wal_mode();
    } else if (const auto replica = database ? database->replica() : nullptr) {
      state.position = replica->position();
      state.wal_mode = replica->status().wal_mode;
    } else {
      OpenOptions no_writes;
      no_writes.read_only = true;
      std::array<std::uint8_t, sqlite::kDatabaseHeaderSize> bytes{};
      const auto file =
          options_.storage->Open(options_.root + "/" + state.position.name, no_writes);
      if (file.ok() && ReadZeroFilled(**file, 0, bytes).ok()) {
        const auto header = sqlite::ParseDatabaseHeader(bytes);
        state.wal_mode = header && header->wal_mode;
      }
    }
    states.push_back(std::move(state));
  }
  return states;
}

absl::StatusOr<std::vector<std::string>> DatabaseSet::LocalFiles() {
  ECHOFS_ASSIGN_OR_RETURN(std::vector<std::string> names, ListMainFiles(options_.root));
  std::erase_if(names, [this](const std::string& name) { return IsDatabase(name); });
  return names;
}

absl::StatusOr<DatabasePosition> DatabaseSet::PositionAt(const std::string& database,
                                                         LogIndex index) {
  const absl::StatusOr<DatabasePosition> logged = options_.log->Position(database);
  if (logged.ok() && logged->index == index) return *logged;
  if (index < options_.log->first_index()) {
    return absl::NotFoundError(fmt::format("the log does not reach back to index {}", index.value));
  }
  const std::unique_ptr<LogReader> reader = options_.log->Read(index);
  ECHOFS_ASSIGN_OR_RETURN(const std::optional<LogEntry> entry, reader->Next());
  if (!entry || entry->database != database || entry->kind != EntryKind::kChangeSet) {
    return absl::NotFoundError(fmt::format("entry {} is not one of {}", index.value, database));
  }
  DatabasePosition position;
  position.name = database;
  position.txid = entry->txid;
  position.digest = entry->digest_after;
  position.page_size = entry->page_size;
  position.page_count = entry->page_count;
  position.attributes = entry->attributes;
  position.wal = entry->wal;
  position.index = entry->index;
  return position;
}

}  // namespace echofs::fs
