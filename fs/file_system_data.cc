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

// What takes changes of a file, or null when nothing does. The -shm is the applications' own.
std::shared_ptr<DatabaseCapture> CaptureOf(const std::shared_ptr<Database>& database,
                                           FileRole role) {
  return database && role != FileRole::kShm ? database->capture() : nullptr;
}

// What serves a -shm from memory: on a replica, also for those who have it open since before its database was
// deleted or replaced.
std::shared_ptr<ReplicaDatabase> ShmServer(const NodeView& view) {
  if (view.role != FileRole::kShm) return nullptr;
  const std::shared_ptr<Database>& database = view.removed ? view.former_database : view.database;
  return database ? database->replica() : nullptr;
}

// A file that replication has put another one in the place of, under a connection that has it open. That connection's
// locks are on the old file, so it could believe itself the only writer once this node is the primary, and what it commits
// would be in no history.
bool IsReplaced(const NodeView& view) {
  return view.removed && (view.role == FileRole::kMain || view.role == FileRole::kWal) &&
         view.former_database && !view.former_database->removed();
}

bool IsDatabaseFile(FileRole role) { return role != FileRole::kSuperJournal; }

// Of the file that is open as `fd`, which may be opened with O_PATH and be a link; `name` is for messages.
absl::Status ChangeMetadata(int fd, const std::string& name, const AttributeChange& change) {
  const std::string path = fmt::format("/proc/self/fd/{}", fd);
  if (change.mode && chmod(path.c_str(), *change.mode & 07777) != 0) return LastError(name);
  if (change.uid || change.gid) {
    if (fchownat(fd, "", change.uid.value_or(static_cast<uid_t>(-1)),
                 change.gid.value_or(static_cast<gid_t>(-1)), AT_EMPTY_PATH) != 0) {
      return LastError(name);
    }
  }
  if (change.access_time || change.modification_time) {
    const timespec omit{0, UTIME_OMIT};
    const timespec times[2] = {change.access_time.value_or(omit),
                               change.modification_time.value_or(omit)};
    if (utimensat(AT_FDCWD, path.c_str(), times, 0) != 0) return LastError(name);
  }
  return absl::OkStatus();
}

// The same for a file that is not open. No link on the way to it is followed, and no link itself.
absl::Status ChangeMetadata(const std::string& path, const AttributeChange& change) {
  const int fd = OpenWithoutLinks(path, O_PATH | O_NOFOLLOW, 0);
  if (fd < 0) return LastError(path);
  absl::Status changed = ChangeMetadata(fd, path, change);
  close(fd);
  return changed;
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
  if (const auto replica = ShmServer(view)) {
    ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t size, replica->ShmSize());
    st.st_size = std::max(st.st_size, static_cast<off_t>(size));
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
  if (const auto capture = database->capture(); capture && view.role != FileRole::kShm) {
    if (absl::Status set = capture->SetFile(view.role, view.file); !set.ok()) {
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
    const auto capture = view.database->capture();
    if (closed.last_writer && capture) status = capture->LastWriterClosed();
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
  if (const auto replica = ShmServer(view)) return replica->ReadShm(offset, out);
  const std::shared_ptr<Database>& owner = view.removed ? view.former_database : view.database;
  if (view.role == FileRole::kWal && owner && owner->retired()) {
    // Not EIO, from which SQLite concludes that the file is corrupt.
    return StatusFromErrno(ESTALE, "the database was replaced; connections must be opened anew");
  }
  if (view.file) return view.file->ReadAt(offset, out);
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<File> file, OpenBacking(*node, tree_.Path(*node)));
  return file->ReadAt(offset, out);
}

absl::Status FileSystem::Write(InodeNumber number, std::uint64_t offset, ByteView bytes) {
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Node> node, Find(number));
  const NodeView view = tree_.View(*node);
  if (!view.file) return StatusFromErrno(EBADF, "the file is not open");
  if (IsReplaced(view)) {
    return StatusFromErrno(ESTALE, "the database was replaced; connections must be opened anew");
  }
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Database> database, AttachDatabase(*node, view));
  if (!database) return view.file->WriteAt(offset, bytes);
  const auto replica = database->replica();
  if (view.role == FileRole::kShm) {
    return replica ? replica->WriteShm(offset, bytes) : view.file->WriteAt(offset, bytes);
  }
  if (const auto capture = database->capture()) return capture->Write(view.role, offset, bytes);
  if (database->IsDatabase()) return ReadOnlyNode(*database);
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
    const auto capture = CaptureOf(database, view.role);
    ECHOFS_RETURN_IF_ERROR(capture ? capture->Truncate(view.role, *change.size)
                                   : view.file->Truncate(*change.size));
  }
  // A removed file has no path any more, but a descriptor while somebody has it open.
  ECHOFS_RETURN_IF_ERROR(view.file ? ChangeMetadata(view.file->Descriptor(), node->name, change)
                                   : ChangeMetadata(BackingPath(tree_.Path(*node)), change));
  return StatNode(*node);
}

absl::StatusOr<LogIndex> FileSystem::Sync(InodeNumber number) {
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Node> node, Find(number));
  const NodeView view = tree_.View(*node);
  if (!view.file) return LogIndex{};
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Database> database, AttachDatabase(*node, view));
  if (const auto capture = CaptureOf(database, view.role)) return capture->Sync(view.role);
  ECHOFS_RETURN_IF_ERROR(view.file->Sync());
  return LogIndex{};
}

absl::Status FileSystem::Allocate(InodeNumber number, std::uint64_t end) {
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Node> node, Find(number));
  const NodeView view = tree_.View(*node);
  if (!view.file) return StatusFromErrno(EBADF, "the file is not open");
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Database> database, AttachDatabase(*node, view));
  if (database && databases_->read_only() && database->IsDatabase()) return ReadOnlyNode(*database);
  if (const auto capture = CaptureOf(database, view.role)) return capture->Extend(view.role, end);
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
  const auto capture = view.database ? view.database->capture() : nullptr;
  return capture && capture->WriteMayWait(view.role, offset, size);
}

bool FileSystem::PutOffSync(InodeNumber number) {
  const std::shared_ptr<Node> node = tree_.Find(number);
  if (!node) return false;
  const NodeView view = tree_.View(*node);
  const auto capture = CaptureOf(view.database, view.role);
  return capture && capture->PutOffSync(view.role);
}

bool FileSystem::IsJournal(InodeNumber number) {
  return CaptureOfNode(number, FileRole::kJournal) != nullptr;
}

bool FileSystem::TruncateMayWait(InodeNumber number) {
  const std::shared_ptr<Node> node = tree_.Find(number);
  if (!node) return false;
  const NodeView view = tree_.View(*node);
  const auto capture = CaptureOf(view.database, view.role);
  return capture && (view.role != FileRole::kJournal || capture->EndOfJournalMayWait());
}

}  // namespace echofs::fs
