#include "fs/replica_database.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "replication/digest.h"
#include "replication/failpoint.h"
#include "replication/status_macros.h"

namespace echofs::fs {
namespace {

using sqlite::FileRole;

constexpr std::uint64_t kReadPagesSizeMax = 4 << 20;  // bytes

}  // namespace

ReplicaDatabase::ReplicaDatabase(std::unique_ptr<ReplicaFiles> files, PageCache* cache,
                                 const DatabasePosition& position,
                                 const ReplicaDatabaseOptions& options)
    : files_(std::move(files)),
      cache_(cache),
      options_(options),
      next_pause_(options.pause_frames) {
  absl::MutexLock lock(&mutex_);
  status_.position = position;
}

ReplicaDatabase::~ReplicaDatabase() { Detach(); }

absl::StatusOr<std::unique_ptr<ReplicaDatabase>> ReplicaDatabase::Open(
    std::unique_ptr<ReplicaFiles> files, PageCache* cache, const DatabasePosition& position,
    const ReplicaDatabaseOptions& options, int* blocked_by_pid) {
  ECHOFS_ASSIGN_OR_RETURN(std::unique_ptr<ReplicaDatabase> database,
                          Create(std::move(files), cache, position, options));
  ECHOFS_RETURN_IF_ERROR(database->Join(blocked_by_pid));
  return database;
}

absl::StatusOr<std::unique_ptr<ReplicaDatabase>> ReplicaDatabase::Create(
    std::unique_ptr<ReplicaFiles> files, PageCache* cache, const DatabasePosition& position,
    const ReplicaDatabaseOptions& options) {
  absl::StatusOr<std::unique_ptr<File>> shm = files->OpenBacking(FileRole::kShm, false);
  if (!shm.ok() && !absl::IsNotFound(shm.status())) return shm.status();
  std::unique_ptr<ReplicaDatabase> database(
      new ReplicaDatabase(std::move(files), cache, position, options));
  absl::MutexLock lock(&database->mutex_);
  if (shm.ok()) database->shm_file_ = *std::move(shm);
  return database;
}

absl::Status ReplicaDatabase::Join(int* blocked_by_pid) {
  *blocked_by_pid = 0;
  const DatabasePosition now = position();
  if (now.dropped || now.page_count == 0) return absl::OkStatus();
  ECHOFS_RETURN_IF_ERROR(Attach(blocked_by_pid));
  // With the locks that keep writers out: a journal that is left belongs to nobody, and is none of the states to come.
  return files_->Remove(FileRole::kJournal);
}

absl::Status ReplicaDatabase::Attach(int* blocked_by_pid) {
  ECHOFS_ASSIGN_OR_RETURN(std::unique_ptr<File> main, files_->OpenBacking(FileRole::kMain, false));
  ECHOFS_ASSIGN_OR_RETURN(std::unique_ptr<LockFile> lock_file, files_->OpenLock(FileRole::kMain));
  {
    absl::MutexLock lock(&content_mutex_);
    main_ = std::move(main);
    main_inode_ = files_->Inode(FileRole::kMain);
    lock_file_ = std::move(lock_file);
    lock_ = std::make_unique<DatabaseLock>(lock_file_.get());
  }
  std::array<std::uint8_t, sqlite::kDatabaseHeaderSize> bytes;
  ECHOFS_RETURN_IF_ERROR(ReadZeroFilled(*main_, 0, bytes));
  const std::optional<sqlite::DatabaseHeader> header = sqlite::ParseDatabaseHeader(bytes);
  ECHOFS_ASSIGN_OR_RETURN(const bool wal_file, WalFileExists());
  if (!wal_file && !(header && header->wal_mode)) return StartJournal(blocked_by_pid);
  ECHOFS_ASSIGN_OR_RETURN(const bool shared, lock_->TryShared());
  if (!shared) {
    *blocked_by_pid = lock_file_->ConflictingPid(LockKind::kShared, sqlite::kPendingByte,
                                                 2 + sqlite::kSharedSize);
    return absl::UnavailableError(
        fmt::format("process {} has the database to itself", *blocked_by_pid));
  }
  ECHOFS_RETURN_IF_ERROR(StartWal(blocked_by_pid));
  std::vector<std::uint8_t> page(position().page_size);
  ECHOFS_RETURN_IF_ERROR(wal_->ReadPage(1, page));
  const std::optional<sqlite::DatabaseHeader> newest = sqlite::ParseDatabaseHeader(page);
  absl::MutexLock lock(&mutex_);
  status_.wal_mode = newest && newest->wal_mode;
  return absl::OkStatus();
}

absl::StatusOr<bool> ReplicaDatabase::WalFileExists() {
  absl::StatusOr<std::unique_ptr<File>> wal = files_->OpenBacking(FileRole::kWal, false);
  if (absl::IsNotFound(wal.status())) return false;
  ECHOFS_RETURN_IF_ERROR(wal.status());
  ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t size, (*wal)->Size());
  return size != 0;  // SQLite too takes an empty one for none
}

// The caller holds SHARED or EXCLUSIVE on the database.
absl::Status ReplicaDatabase::StartWal(int* blocked_by_pid) {
  WalApplyFiles files;
  files.main = main_;
  files.main_inode = main_inode_;
  ECHOFS_ASSIGN_OR_RETURN(files.wal, files_->OpenBacking(FileRole::kWal, true));
  ECHOFS_ASSIGN_OR_RETURN(files.wal_lock, files_->OpenLock(FileRole::kWal));
  files.wal_inode = files_->Inode(FileRole::kWal);
  ECHOFS_ASSIGN_OR_RETURN(files.shm, files_->OpenBacking(FileRole::kShm, true));
  {
    absl::MutexLock lock(&mutex_);
    if (index_ == nullptr) shm_file_ = files.shm;
  }
  ECHOFS_ASSIGN_OR_RETURN(files.shm_lock, files_->OpenLock(FileRole::kShm));
  files.shm_inode = files_->Inode(FileRole::kShm);

  const DatabasePosition now = position();
  WalApplyOptions options;
  options.page_size = now.page_size;
  options.page_count = now.page_count;
  options.checkpoint_frames = options_.checkpoint_frames;
  options.sync_log = [this] { return options_.sync_log(position().index); };
  ECHOFS_ASSIGN_OR_RETURN(std::unique_ptr<WalApply> wal,
                          WalApply::Start(std::move(files), cache_, options, blocked_by_pid));
  {
    absl::MutexLock lock(&mutex_);
    index_ = wal->index();
  }
  ECHOFS_RETURN_IF_ERROR(wal->Activate());
  next_pause_ = options_.pause_frames;
  absl::MutexLock content(&content_mutex_);
  wal_ = std::move(wal);
  journal_.reset();
  absl::MutexLock lock(&mutex_);
  status_.uses_wal = true;
  return absl::OkStatus();
}

absl::Status ReplicaDatabase::StartJournal(int* blocked_by_pid) {
  const DatabasePosition now = position();
  ECHOFS_ASSIGN_OR_RETURN(
      std::unique_ptr<JournalApply> journal,
      JournalApply::Start(main_, main_inode_, lock_.get(), lock_file_.get(), cache_, now.page_size,
                          now.page_count, blocked_by_pid));
  absl::MutexLock content(&content_mutex_);
  journal_ = std::move(journal);
  absl::MutexLock lock(&mutex_);
  status_.uses_wal = false;
  return absl::OkStatus();
}

// Closing a descriptor of the mount may make the kernel ask this process something, so nothing is
// destroyed under a mutex.
void ReplicaDatabase::Detach() {
  // Destroyed from the last to the first: locks before their files, those of the -shm first of all.
  std::unique_ptr<LockFile> lock_file;
  std::unique_ptr<DatabaseLock> database_lock;
  std::shared_ptr<File> main;
  std::unique_ptr<JournalApply> journal;
  std::unique_ptr<WalApply> wal;
  absl::MutexLock content(&content_mutex_);
  lock_file = std::move(lock_file_);
  database_lock = std::move(lock_);
  main = std::move(main_);
  journal = std::move(journal_);
  wal = std::move(wal_);
}

absl::Status ReplicaDatabase::Drop(const LogEntry& entry) {
  // The main file first: who finds it gone does not look for the others, and nobody can open a
  // database whose WAL is already missing.
  Failpoint("apply.drop.before");
  ECHOFS_RETURN_IF_ERROR(files_->Remove(FileRole::kMain));
  Failpoint("apply.drop_main.after");
  ECHOFS_RETURN_IF_ERROR(files_->Remove(FileRole::kJournal));
  ECHOFS_RETURN_IF_ERROR(files_->Remove(FileRole::kWal));
  ECHOFS_RETURN_IF_ERROR(files_->Remove(FileRole::kShm));
  Detach();
  absl::MutexLock lock(&mutex_);
  // The -shm is still served to who has it open.
  status_.position.txid = entry.txid;
  status_.position.index = entry.index;
  status_.position.digest = 0;
  status_.position.page_size = 0;
  status_.position.page_count = 0;
  status_.position.attributes = entry.attributes;
  status_.position.wal = {};
  status_.position.dropped = true;
  status_.wal_mode = false;
  status_.uses_wal = false;
  status_.wal_frames = 0;
  status_.stopped = absl::OkStatus();
  return absl::OkStatus();
}

absl::Status ReplicaDatabase::Close() {
  const absl::Status stopped = status().stopped;
  if (!stopped.ok()) return absl::FailedPreconditionError(stopped.message());
  if (wal_ != nullptr) {
    ECHOFS_RETURN_IF_ERROR(wal_->Release());
    absl::MutexLock lock(&mutex_);
    index_.reset();
    shm_file_ = wal_->shm_file();
  }
  closed_ = true;
  Detach();
  return absl::OkStatus();
}

absl::Status ReplicaDatabase::Retire() {
  ECHOFS_CHECK(wal_ != nullptr);
  absl::Status retired = wal_->Retire();
  closed_ = true;
  Detach();  // the locks too: who recovers must find the WAL, not a lock
  return retired;
}

WalPosition ReplicaDatabase::WalEnd() const {
  return wal_ != nullptr ? wal_->End() : WalPosition{};
}

absl::StatusOr<PageRun> ReplicaDatabase::ReadPages(PageNumber first, std::uint32_t count) {
  absl::MutexLock content(&content_mutex_);
  const ReplicaDatabaseStatus now = status();
  if (!now.stopped.ok()) return now.stopped;
  if (wal_ == nullptr && journal_ == nullptr) {
    return Exists() ? absl::UnavailableError("an application is opening the database")
                    : absl::NotFoundError("there is no local copy");
  }
  PageRun run;
  run.position = now.position;
  run.first = first;
  const std::uint64_t size = now.position.page_size;
  const std::uint64_t end = std::min<std::uint64_t>(
      {std::uint64_t{now.position.page_count} + 1, std::uint64_t{first} + count,
       first + std::max<std::uint64_t>(1, kReadPagesSizeMax / size)});
  for (std::uint64_t n = std::max<PageNumber>(first, 1); n < end; ++n) {
    run.pages.resize(run.pages.size() + size);
    const MutableByteView page = MutableByteView(run.pages).last(size);
    const auto number = static_cast<PageNumber>(n);
    if (number == LockPage(now.position.page_size)) continue;
    ECHOFS_RETURN_IF_ERROR(wal_ != nullptr ? wal_->ReadPage(number, page)
                                           : journal_->ReadPage(number, page));
  }
  return run;
}

absl::Status ReplicaDatabase::SyncFiles() {
  std::shared_ptr<File> wal;
  std::shared_ptr<File> main;
  {
    absl::MutexLock content(&content_mutex_);
    if (wal_ != nullptr) wal = wal_->wal_file();
    main = main_;
  }
  if (wal != nullptr) ECHOFS_RETURN_IF_ERROR(wal->Sync());
  return main != nullptr ? main->Sync() : absl::OkStatus();
}

ReplicaDatabaseStatus ReplicaDatabase::status() const {
  absl::MutexLock lock(&mutex_);
  return status_;
}

DatabasePosition ReplicaDatabase::position() const {
  absl::MutexLock lock(&mutex_);
  return status_.position;
}

absl::StatusOr<std::size_t> ReplicaDatabase::ReadShm(std::uint64_t offset,
                                                     MutableByteView out) const {
  absl::MutexLock lock(&mutex_);
  if (index_ != nullptr) return index_->Read(offset, out);
  if (shm_file_ != nullptr) return shm_file_->ReadAt(offset, out);
  return 0;
}

absl::Status ReplicaDatabase::WriteShm(std::uint64_t offset, ByteView bytes) {
  absl::MutexLock lock(&mutex_);
  if (index_ != nullptr) {
    index_->MergeWrite(offset, bytes);
    return absl::OkStatus();
  }
  return shm_file_ != nullptr ? shm_file_->WriteAt(offset, bytes) : absl::OkStatus();
}

absl::StatusOr<std::uint64_t> ReplicaDatabase::ShmSize() const {
  absl::MutexLock lock(&mutex_);
  if (index_ != nullptr) return index_->size();
  if (shm_file_ != nullptr) return shm_file_->Size();
  return 0;
}

}  // namespace echofs::fs
