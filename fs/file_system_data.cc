#include <fcntl.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "fs/database_set.h"
#include "fs/file_system.h"
#include "replication/status_macros.h"

namespace echofs::fs {
namespace {

using sqlite::FileRole;

absl::Status LastError(const std::string& path) { return StatusFromErrno(errno, path); }

bool MayWrite(int flags) { return (flags & O_ACCMODE) != O_RDONLY; }

bool IsDatabaseFile(FileRole role) { return role != FileRole::kSuperJournal; }

// `flags`: AT_SYMLINK_NOFOLLOW, or 0 for a path that is a link to the file.
absl::Status ChangeMetadata(const std::string& path, int flags, const AttributeChange& change) {
  if (change.mode && chmod(path.c_str(), *change.mode & 07777) != 0) return LastError(path);
  if (change.uid || change.gid) {
    if (fchownat(AT_FDCWD, path.c_str(), change.uid.value_or(static_cast<uid_t>(-1)),
                 change.gid.value_or(static_cast<gid_t>(-1)), flags) != 0) {
      return LastError(path);
    }
  }
  if (change.access_time || change.modification_time) {
    const timespec omit{0, UTIME_OMIT};
    const timespec times[2] = {change.access_time.value_or(omit),
                               change.modification_time.value_or(omit)};
    if (utimensat(AT_FDCWD, path.c_str(), times, flags) != 0) return LastError(path);
  }
  return absl::OkStatus();
}

absl::Status ReadOnlyNode(const Database& database) {
  return StatusFromErrno(EROFS, fmt::format("{}: this node is a replica", database.name()));
}

}  // namespace

FileSystem::FileSystem(std::string root, DatabaseSet* databases, Storage* storage,
                       ControlSource control)
    : root_(std::move(root)),
      databases_(databases),
      storage_(storage),
      control_(std::move(control)) {}

std::string FileSystem::TextOf(const Node& node) {
  switch (node.control) {
    case ControlFile::kPrimary:
      return control_.primary_name() + "\n";
    case ControlFile::kLag:
      return LagText(control_.lag_ms());
    case ControlFile::kPosition: {
      std::string path = tree_.Path(node);
      path.resize(path.size() - std::min(path.size(), kPositionSuffix.size()));
      absl::StatusOr<DatabasePosition> position = databases_->AppliedPosition(path);
      return PositionText(position.ok() ? *position : DatabasePosition{});
    }
    case ControlFile::kNone:
      break;
  }
  return "";
}

struct stat FileSystem::ControlAttributes(const Node& node) {
  struct stat st {};
  st.st_ino = node.number;
  st.st_mode = S_IFREG | 0444;
  st.st_nlink = 1;
  st.st_uid = geteuid();
  st.st_gid = getegid();
  st.st_size = static_cast<off_t>(TextOf(node).size());
  clock_gettime(CLOCK_REALTIME, &st.st_mtim);
  st.st_atim = st.st_ctim = st.st_mtim;
  return st;
}

std::optional<std::string> FileSystem::ControlText(InodeNumber number) {
  const std::shared_ptr<Node> node = tree_.Find(number);
  if (!node || node->control == ControlFile::kNone) return std::nullopt;
  return TextOf(*node);
}

absl::StatusOr<struct stat> FileSystem::StatNode(const Node& node) {
  if (node.control != ControlFile::kNone) return ControlAttributes(node);
  struct stat st;
  const NodeView view = tree_.View(node);
  if (view.file) {
    if (fstat(view.file->Descriptor(), &st) != 0) return LastError(node.name);
  } else {
    if (view.removed) return StatusFromErrno(ESTALE, "the file was removed");
    const std::string path = BackingPath(tree_.Path(node));
    if (lstat(path.c_str(), &st) != 0) return LastError(path);
  }
  if (view.role == FileRole::kShm && view.database && databases_->read_only()) {
    if (const auto replica = view.database->replica()) {
      ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t size, replica->ShmSize());
      st.st_size = std::max(st.st_size, static_cast<off_t>(size));
    }
  }
  st.st_ino = node.number;
  return st;
}

absl::StatusOr<struct stat> FileSystem::GetAttributes(InodeNumber number) {
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Node> node, Find(number));
  return StatNode(*node);
}

absl::StatusOr<std::shared_ptr<Database>> FileSystem::DatabaseForPath(const std::string& path,
                                                                      FileRole role) {
  if (!IsDatabaseFile(role)) return nullptr;
  const std::string main = role == FileRole::kMain ? path : databases_->MainPath(path);
  if (auto database = databases_->Find(main)) return database;
  struct stat st;
  if (lstat(BackingPath(main).c_str(), &st) != 0) {
    if (errno == ENOENT || errno == ENOTDIR || errno == ENAMETOOLONG) return nullptr;
    return LastError(main);
  }
  if (!S_ISREG(st.st_mode)) return nullptr;
  absl::StatusOr<std::shared_ptr<Database>> database = databases_->OpenMain(main);
  if (absl::IsNotFound(database.status())) return nullptr;  // removed since
  return database;
}

absl::StatusOr<std::shared_ptr<Database>> FileSystem::AttachDatabase(Node& node,
                                                                     const NodeView& view) {
  if (view.removed || !IsDatabaseFile(view.role) || node.control != ControlFile::kNone) {
    return nullptr;
  }
  if (view.database && !view.database->removed()) return view.database;
  ECHOFS_ASSIGN_OR_RETURN(std::shared_ptr<Database> database,
                          DatabaseForPath(tree_.Path(node), view.role));
  if (!database) return nullptr;
  if (database->capture() && view.role != FileRole::kShm) {
    if (absl::Status set = database->capture()->SetFile(view.role, view.file); !set.ok()) {
      spdlog::error("{}: {}", database->name(), std::string(set.message()));
      return set;
    }
  }
  tree_.SetDatabase(node, database);
  return database;
}

absl::StatusOr<std::shared_ptr<File>> FileSystem::OpenBacking(Node& node, const std::string& path) {
  absl::MutexLock lock(&opening_);
  if (std::shared_ptr<File> file = tree_.View(node).file) return file;
  absl::StatusOr<std::unique_ptr<File>> file = storage_->Open(BackingPath(path), {});
  if (!file.ok()) {
    OpenOptions read_only;
    read_only.read_only = true;
    file = storage_->Open(BackingPath(path), read_only);
  }
  if (!file.ok()) return file.status();
  std::shared_ptr<File> shared = *std::move(file);
  tree_.SetFile(node, shared);
  return shared;
}

absl::Status FileSystem::Open(InodeNumber number, int flags, bool own) {
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Node> node, Find(number));
  if (node->control != ControlFile::kNone) {
    return MayWrite(flags) ? StatusFromErrno(EACCES, "a control file is read-only")
                           : absl::OkStatus();
  }
  if (own) return ViewWithFile(*node).status();
  // Counted first: the kernel tells of a close late, and a Release at the same time must not take the file.
  tree_.CountOpen(*node, MayWrite(flags));
  absl::Status status = OpenCounted(*node, flags);
  if (!status.ok()) {
    tree_.CountClose(*node, MayWrite(flags));
    tree_.DropUnusedFile(*node);
  }
  return status;
}

absl::Status FileSystem::OpenCounted(Node& node, int flags) {
  ECHOFS_ASSIGN_OR_RETURN(const NodeView view, ViewWithFile(node));
  ECHOFS_RETURN_IF_ERROR(AttachDatabase(node, view).status());
  if ((flags & O_TRUNC) == 0) return absl::OkStatus();
  AttributeChange change;
  change.size = 0;
  return SetAttributes(node.number, change).status();
}

absl::StatusOr<NodeView> FileSystem::ViewWithFile(Node& node) {
  NodeView view = tree_.View(node);
  if (!view.file) {
    ECHOFS_ASSIGN_OR_RETURN(view.file, OpenBacking(node, tree_.Path(node)));
  }
  return view;
}

absl::Status FileSystem::Release(InodeNumber number, int flags, bool own) {
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Node> node, Find(number));
  if (own || node->control != ControlFile::kNone) return absl::OkStatus();
  const FileTree::Closed closed = tree_.CountClose(*node, MayWrite(flags));
  const NodeView view = tree_.View(*node);
  absl::Status status;
  if (view.role == FileRole::kMain && view.database && !view.database->removed()) {
    if (closed.last_writer && view.database->capture()) {
      status = view.database->capture()->LastWriterClosed();
    }
    if (closed.last && !view.database->IsDatabase()) {
      databases_->LogLocalFile(view.database->name());
      databases_->Forget(*view.database);
    }
  }
  // Nothing but open descriptors keeps a file open that belongs to no database.
  if (closed.last && (!view.database || !view.database->IsDatabase())) {
    tree_.DropUnusedFile(*node);
  }
  return status;
}

absl::StatusOr<std::size_t> FileSystem::Read(InodeNumber number, std::uint64_t offset,
                                             MutableByteView out) {
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Node> node, Find(number));
  const NodeView view = tree_.View(*node);
  if (view.role == FileRole::kShm && databases_->read_only() && view.database) {
    if (const auto replica = view.database->replica()) return replica->ReadShm(offset, out);
  }
  if (view.file) return view.file->ReadAt(offset, out);
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<File> file, OpenBacking(*node, tree_.Path(*node)));
  return file->ReadAt(offset, out);
}

absl::Status FileSystem::Write(InodeNumber number, std::uint64_t offset, ByteView bytes) {
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Node> node, Find(number));
  const NodeView view = tree_.View(*node);
  if (!view.file) return StatusFromErrno(EBADF, "the file is not open");
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Database> database, AttachDatabase(*node, view));
  if (!database) return view.file->WriteAt(offset, bytes);
  if (DatabaseCapture* const capture = database->capture()) {
    return view.role == FileRole::kShm ? view.file->WriteAt(offset, bytes)
                                       : capture->Write(view.role, offset, bytes);
  }
  if (const auto replica = database->replica()) {
    return view.role == FileRole::kShm ? replica->WriteShm(offset, bytes) : ReadOnlyNode(*database);
  }
  if (view.role == FileRole::kMain && offset == 0 && sqlite::HasDatabaseMagic(bytes)) {
    return ReadOnlyNode(*database);  // a database cannot come into being on a replica
  }
  return view.file->WriteAt(offset, bytes);
}

absl::StatusOr<struct stat> FileSystem::SetAttributes(InodeNumber number,
                                                      const AttributeChange& change) {
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Node> node, Find(number));
  if (node->control != ControlFile::kNone)
    return StatusFromErrno(EPERM, "a control file is read-only");
  NodeView view = tree_.View(*node);
  std::shared_ptr<Database> database;
  if (number != tree_.root()->number && (view.file || change.size)) {
    ECHOFS_ASSIGN_OR_RETURN(view, ViewWithFile(*node));
    ECHOFS_ASSIGN_OR_RETURN(database, AttachDatabase(*node, view));
  } else if (number != tree_.root()->number && databases_->read_only()) {
    database = databases_->Find(databases_->MainPath(tree_.Path(*node)));
  }
  if (database && databases_->read_only() && database->IsDatabase()) {
    return StatusFromErrno(EPERM, fmt::format("{}: this node is a replica", database->name()));
  }
  if (change.size) {
    const bool captured = database && database->capture() && view.role != FileRole::kShm;
    ECHOFS_RETURN_IF_ERROR(captured ? database->capture()->Truncate(view.role, *change.size)
                                    : view.file->Truncate(*change.size));
  }
  // A removed file has no path any more; its descriptor has one, a link that is to be followed.
  const bool open = view.file != nullptr;
  ECHOFS_RETURN_IF_ERROR(
      ChangeMetadata(open ? fmt::format("/proc/self/fd/{}", view.file->Descriptor())
                          : BackingPath(tree_.Path(*node)),
                     open ? 0 : AT_SYMLINK_NOFOLLOW, change));
  return StatNode(*node);
}

absl::Status FileSystem::Sync(InodeNumber number) {
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Node> node, Find(number));
  const NodeView view = tree_.View(*node);
  if (!view.file) return absl::OkStatus();
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Database> database, AttachDatabase(*node, view));
  if (database && database->capture() && view.role != FileRole::kShm) {
    return database->capture()->Sync(view.role);
  }
  return view.file->Sync();
}

absl::Status FileSystem::Allocate(InodeNumber number, std::uint64_t end) {
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Node> node, Find(number));
  const NodeView view = tree_.View(*node);
  if (!view.file) return StatusFromErrno(EBADF, "the file is not open");
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Database> database, AttachDatabase(*node, view));
  if (database && databases_->read_only() && database->IsDatabase()) return ReadOnlyNode(*database);
  if (database && database->capture() && view.role != FileRole::kShm) {
    return database->capture()->Extend(view.role, end);
  }
  ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t size, view.file->Size());
  return end > size ? view.file->Truncate(end) : absl::OkStatus();
}

absl::Status FileSystem::SyncDirectory(InodeNumber number) {
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Node> node, Find(number));
  return storage_->SyncDirectory(BackingPath(tree_.Path(*node)));
}

void FileSystem::SetKernel(PageCache* cache, std::string mount_point) {
  cache_ = cache;
  mount_point_ = std::move(mount_point);
}

bool FileSystem::WriteMayWait(InodeNumber number, std::uint64_t offset, std::uint64_t size) {
  const std::shared_ptr<Node> node = tree_.Find(number);
  if (!node) return false;
  const NodeView view = tree_.View(*node);
  return view.database && view.database->capture() &&
         view.database->capture()->WriteMayWait(view.role, offset, size);
}

bool FileSystem::TruncateMayWait(InodeNumber number) {
  const std::shared_ptr<Node> node = tree_.Find(number);
  if (!node) return false;
  const NodeView view = tree_.View(*node);
  if (!view.database || !view.database->capture() || view.role == FileRole::kShm) return false;
  return view.role != FileRole::kJournal || view.database->capture()->EndOfJournalMayWait();
}

}  // namespace echofs::fs
