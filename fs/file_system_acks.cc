// What the mount needs to answer a commit only when other nodes have it (design D1). In WAL mode the sync of the WAL is
// answered late; in rollback modes the operation that ends the journal is done late: its transaction is put into the
// log first, and doing the operation then finds nothing more to log.
#include "fs/database_set.h"
#include "fs/file_system.h"
#include "replication/status_macros.h"

namespace echofs::fs {

using sqlite::FileRole;

CommitAcks* FileSystem::acks() const { return databases_->acks(); }

std::shared_ptr<DatabaseCapture> FileSystem::CaptureOfNode(InodeNumber number, FileRole role) {
  const std::shared_ptr<Node> node = tree_.Find(number);
  if (!node) return nullptr;
  const NodeView view = tree_.View(*node);
  return view.role == role && view.database ? view.database->capture() : nullptr;
}

absl::StatusOr<LogIndex> FileSystem::LogUnlink(InodeNumber parent_number, std::string_view name) {
  const std::shared_ptr<Node> parent = tree_.Find(parent_number);
  if (!parent || sqlite::ClassifyFileName(name).role != FileRole::kJournal) return LogIndex{};
  const std::shared_ptr<Database> database =
      databases_->Find(databases_->MainPath(tree_.ChildPath(*parent, name)));
  const auto capture = database ? database->capture() : nullptr;
  return capture ? capture->LogTransaction() : LogIndex{};
}

absl::StatusOr<LogIndex> FileSystem::LogTruncate(InodeNumber number, std::uint64_t size) {
  if (size >= sqlite::kJournalHeaderSize) return LogIndex{};
  const auto capture = CaptureOfNode(number, FileRole::kJournal);
  return capture ? capture->LogTransaction() : LogIndex{};
}

absl::StatusOr<LogIndex> FileSystem::LogWrite(InodeNumber number, std::uint64_t offset,
                                              ByteView bytes) {
  const auto capture = CaptureOfNode(number, FileRole::kJournal);
  if (!capture || !capture->EndsJournal(offset, bytes)) return LogIndex{};
  return capture->LogTransaction();
}

bool FileSystem::WriteIsAcknowledged(InodeNumber number) {
  return databases_->acknowledge_always() && CaptureOfNode(number, FileRole::kWal) != nullptr;
}

absl::StatusOr<LogIndex> FileSystem::WrittenCommits(InodeNumber number) {
  const auto capture = CaptureOfNode(number, FileRole::kWal);
  return capture ? capture->CommitsToAcknowledge() : LogIndex{};
}

void FileSystem::SetInDoubt(InodeNumber number) {
  if (const auto capture = CaptureOfNode(number, FileRole::kWal)) capture->SetInDoubt();
}

}  // namespace echofs::fs
