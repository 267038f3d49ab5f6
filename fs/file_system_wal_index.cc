// The mount's part in keeping the wal-index true to the WAL (design C3, wal_index_repair.h).
#include <spdlog/spdlog.h>

#include <array>
#include <memory>
#include <string>
#include <utility>

#include "fs/database_set.h"
#include "fs/file_system.h"
#include "fs/wal_index_repair.h"
#include "replication/status_macros.h"

namespace echofs::fs {

using sqlite::FileRole;

// The kernel has written the mapped pages of a -shm back before it sends the FLUSH.
bool FileSystem::FlushNeedsRepair(InodeNumber number) {
  const std::shared_ptr<Node> node = tree_.Find(number);
  if (!node) return false;
  const NodeView view = tree_.View(*node);
  const auto capture = view.database ? view.database->capture() : nullptr;
  if (!capture || !capture->wal_mode()) return false;
  std::shared_ptr<File> shm = view.file;
  if (view.role != FileRole::kShm) {
    OpenOptions read_only;
    read_only.read_only = true;
    absl::StatusOr<std::unique_ptr<File>> opened = storage_->Open(
        BackingPath(view.database->name()) + std::string(sqlite::kShmSuffix), read_only);
    if (!opened.ok()) return false;
    shm = *std::move(opened);
  }
  std::array<std::uint8_t, sqlite::kWalIndexHeadersSize> headers{};
  if (!shm || !ReadZeroFilled(*shm, 0, headers).ok()) return false;
  return capture->HasCommitUnknownTo(headers);
}

void FileSystem::RepairIndex(InodeNumber number, pid_t thread) {
  const std::shared_ptr<Node> node = tree_.Find(number);
  const std::shared_ptr<Database> database = node ? tree_.View(*node).database : nullptr;
  const auto capture = database ? database->capture() : nullptr;
  if (!capture) return;
  const std::string shm = database->name() + std::string(sqlite::kShmSuffix);
  const absl::Status repaired = RepairWalIndex(
      {capture.get(), cache_, storage_, BackingPath(shm), mount_point_ + "/" + shm, thread});
  if (repaired.ok()) return;
  // Whoever writes over the commit is refused, and the WAL is kept.
  capture->SetInDoubt();
  spdlog::error("{}: a commit that its wal-index does not know stays in the way of others: {}",
                database->name(), std::string(repaired.message()));
}

bool FileSystem::ErrorNeedsRepair(InodeNumber number) {
  const std::shared_ptr<Node> node = tree_.Find(number);
  if (!node) return false;
  const NodeView view = tree_.View(*node);
  return (view.role == FileRole::kWal || view.role == FileRole::kShm) && view.database &&
         view.database->capture() && view.database->IsDatabase();
}

bool FileSystem::WantsFlush(InodeNumber number) {
  const std::shared_ptr<Node> node = tree_.Find(number);
  if (!node) return false;
  const FileRole role = tree_.View(*node).role;
  return role == FileRole::kWal || role == FileRole::kShm;
}

}  // namespace echofs::fs
