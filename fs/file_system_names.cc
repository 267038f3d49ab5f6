#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "fs/database_set.h"
#include "fs/file_system.h"
#include "fs/proc_stat.h"
#include "replication/parent_directory.h"
#include "replication/status_macros.h"

namespace echofs::fs {
namespace {

constexpr std::size_t kNameSizeMax = 255;  // bytes, as ext4

absl::Status LastError(const std::string& path) { return StatusFromErrno(errno, path); }

absl::Status CheckName(std::string_view name) {
  return name.size() > kNameSizeMax ? StatusFromErrno(ENAMETOOLONG, "the name is too long")
                                    : absl::OkStatus();
}

// What was made just now, not followed if somebody has put a link in its place. Closes itself.
class MadeFile {
 public:
  explicit MadeFile(const ParentDirectory& parent)
      : fd_(openat(parent.fd(), parent.name(), O_PATH | O_NOFOLLOW | O_CLOEXEC)) {}
  ~MadeFile() {
    if (fd_ >= 0) close(fd_);
  }
  MadeFile(const MadeFile&) = delete;
  MadeFile& operator=(const MadeFile&) = delete;

  int fd() const { return fd_; }
  // -1 with errno.
  int SetMode(mode_t mode) const {
    return fd_ < 0 ? -1 : chmod(fmt::format("/proc/self/fd/{}", fd_).c_str(), mode);
  }

 private:
  const int fd_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<Node>> FileSystem::Find(InodeNumber number) {
  std::shared_ptr<Node> node = tree_.Find(number);
  if (!node) return StatusFromErrno(ESTALE, fmt::format("inode {} is not known", number));
  return node;
}

std::string FileSystem::BackingPath(const std::string& path) const {
  return path.empty() ? root_ : root_ + "/" + path;
}

ControlFile FileSystem::ControlFileOf(const Node& parent, std::string_view name) {
  if (parent.number == tree_.root()->number) {
    if (name == kLagFileName) return ControlFile::kLag;
    if (name == kPrimaryFileName && !control_.primary_name().empty()) return ControlFile::kPrimary;
  }
  if (name.size() > kPositionSuffix.size() && name.ends_with(kPositionSuffix)) {
    const std::string_view base = name.substr(0, name.size() - kPositionSuffix.size());
    if (databases_->IsDatabase(tree_.ChildPath(parent, base))) return ControlFile::kPosition;
  }
  return ControlFile::kNone;
}

absl::StatusOr<Entry> FileSystem::Lookup(InodeNumber parent_number, std::string_view name) {
  ECHOFS_RETURN_IF_ERROR(CheckName(name));
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Node> parent, Find(parent_number));
  Entry entry;
  if (const ControlFile control = ControlFileOf(*parent, name); control != ControlFile::kNone) {
    entry.node = tree_.Lookup(parent, name, control, 0);
    entry.attributes = ControlAttributes(*entry.node);
    return entry;
  }
  const std::string path = BackingPath(tree_.ChildPath(*parent, name));
  const ParentDirectory above(path);
  if (above.fd() < 0 ||
      fstatat(above.fd(), above.name(), &entry.attributes, AT_SYMLINK_NOFOLLOW) != 0) {
    return LastError(path);
  }
  entry.node = tree_.Lookup(parent, name, ControlFile::kNone, entry.attributes.st_ino);
  entry.attributes.st_ino = entry.node->number;
  return entry;
}

// A new file belongs to the caller, or to the directory's group where that is set so.
void FileSystem::SetOwner(int descriptor, const std::string& path, const Caller& caller,
                          const struct stat& directory) {
  const gid_t gid = (directory.st_mode & S_ISGID) != 0 ? directory.st_gid : caller.gid;
  if (geteuid() != 0) return;  // an ordinary user's mount has one user only
  if (fchownat(descriptor, "", caller.uid, gid, AT_EMPTY_PATH) != 0)
    databases_->LogOnce(fmt::format("cannot set the owner of {}", path));
}

// On a replica nothing may be made that would be, or become part of, a database (A1).
absl::Status FileSystem::CheckCreate(const std::string& path, std::string_view name) {
  if (!databases_->read_only()) return absl::OkStatus();
  const sqlite::FileName classified = sqlite::ClassifyFileName(name);
  if (classified.role == sqlite::FileRole::kMain ||
      classified.role == sqlite::FileRole::kSuperJournal) {
    return absl::OkStatus();
  }
  const std::string base = path.substr(0, path.size() - (name.size() - classified.database.size()));
  struct stat st;
  if (lstat(BackingPath(base).c_str(), &st) != 0) return absl::OkStatus();
  return StatusFromErrno(EROFS, fmt::format("{}: this node is a replica", path));
}

absl::Status FileSystem::CheckConnection(const std::string& path, pid_t thread) {
  const sqlite::FileName name = sqlite::ClassifyFileName(path);
  if (name.role != sqlite::FileRole::kWal && name.role != sqlite::FileRole::kShm &&
      name.role != sqlite::FileRole::kJournal) {
    return absl::OkStatus();
  }
  if (!earlier_mount_.HasOpen(thread, std::string(name.database))) return absl::OkStatus();
  const std::string text = fmt::format(
      "{}: a process ({}) has it open from before this node was started, and cannot use it until "
      "it has closed that "
      "connection; restart the application if it does not do so by itself",
      name.database, ProcName(ReadProcStat(thread)));
  databases_->LogOnce(text);
  return StatusFromErrno(EIO, text);
}

absl::Status FileSystem::CheckOpener(InodeNumber number, pid_t thread) {
  const std::shared_ptr<Node> node = tree_.Find(number);
  return node ? CheckConnection(tree_.Path(*node), thread) : absl::OkStatus();
}

absl::Status FileSystem::CheckCreator(InodeNumber parent_number, std::string_view name,
                                      pid_t thread) {
  const std::shared_ptr<Node> parent = tree_.Find(parent_number);
  return parent ? CheckConnection(tree_.ChildPath(*parent, name), thread) : absl::OkStatus();
}

absl::StatusOr<Entry> FileSystem::Create(InodeNumber parent_number, std::string_view name,
                                         mode_t mode, int flags, const Caller& caller, bool own) {
  ECHOFS_RETURN_IF_ERROR(CheckName(name));
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Node> parent, Find(parent_number));
  if (ControlFileOf(*parent, name) != ControlFile::kNone) {
    return StatusFromErrno(EEXIST, "a control file has this name");
  }
  const std::string path = tree_.ChildPath(*parent, name);
  ECHOFS_RETURN_IF_ERROR(CheckCreate(path, name));
  ECHOFS_ASSIGN_OR_RETURN(const struct stat directory, StatNode(*parent));
  OpenOptions options;
  options.create = true;
  options.exclusive = (flags & O_EXCL) != 0;
  options.mode = mode & 07777;
  struct stat before;
  const bool is_new = lstat(BackingPath(path).c_str(), &before) != 0;
  ECHOFS_ASSIGN_OR_RETURN(std::unique_ptr<File> file, storage_->Open(BackingPath(path), options));
  if (is_new) SetOwner(file->Descriptor(), path, caller, directory);
  Entry entry;
  if (fstat(file->Descriptor(), &entry.attributes) != 0) return LastError(path);
  entry.node = tree_.Lookup(parent, name, ControlFile::kNone, entry.attributes.st_ino);
  entry.attributes.st_ino = entry.node->number;
  if (!tree_.View(*entry.node).file) tree_.SetFile(*entry.node, std::move(file));
  absl::Status opened = Open(entry.node->number, flags & ~(O_CREAT | O_EXCL), own);
  if (!opened.ok()) {
    tree_.Forget(entry.node->number, 1);
    return opened;
  }
  return entry;
}

absl::StatusOr<Entry> FileSystem::MakeDirectory(InodeNumber parent_number, std::string_view name,
                                                mode_t mode, const Caller& caller) {
  ECHOFS_RETURN_IF_ERROR(CheckName(name));
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Node> parent, Find(parent_number));
  ECHOFS_ASSIGN_OR_RETURN(const struct stat directory, StatNode(*parent));
  const std::string path = BackingPath(tree_.ChildPath(*parent, name));
  const ParentDirectory above(path);
  if (above.fd() < 0 || mkdirat(above.fd(), above.name(), mode & 07777) != 0) {
    return LastError(path);
  }
  const MadeFile made(above);
  if (made.SetMode((mode & 07777) | (directory.st_mode & S_ISGID)) != 0) return LastError(path);
  SetOwner(made.fd(), path, caller, directory);
  // SQLite syncs the directory of a database, and not those above it: its commits would be lost with them.
  ECHOFS_RETURN_IF_ERROR(SyncDirectory(parent_number));
  return Lookup(parent_number, name);
}

absl::StatusOr<Entry> FileSystem::MakeSymlink(InodeNumber parent_number, std::string_view name,
                                              const std::string& target, const Caller& caller) {
  ECHOFS_RETURN_IF_ERROR(CheckName(name));
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Node> parent, Find(parent_number));
  ECHOFS_ASSIGN_OR_RETURN(const struct stat directory, StatNode(*parent));
  const std::string path = BackingPath(tree_.ChildPath(*parent, name));
  const ParentDirectory above(path);
  if (above.fd() < 0 || symlinkat(target.c_str(), above.fd(), above.name()) != 0) {
    return LastError(path);
  }
  const MadeFile made(above);
  if (made.fd() < 0) return LastError(path);
  SetOwner(made.fd(), path, caller, directory);
  return Lookup(parent_number, name);
}

absl::StatusOr<std::string> FileSystem::ReadSymlink(InodeNumber number) {
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Node> node, Find(number));
  const std::string path = BackingPath(tree_.Path(*node));
  char target[PATH_MAX];
  const ParentDirectory above(path);
  if (above.fd() < 0) return LastError(path);
  const ssize_t n = readlinkat(above.fd(), above.name(), target, sizeof(target));
  if (n < 0) return LastError(path);
  return std::string(target, static_cast<std::size_t>(n));
}

// SQLite has the database open when it removes a WAL; a person who deletes files has not. The kernel tells of a
// close late.
bool FileSystem::IsAbandoned(const Node& parent, std::string_view database) {
  const absl::Time end = absl::Now() + absl::Seconds(1);
  while (tree_.Opens(parent, database) > 0) {
    if (absl::Now() > end) return false;
    absl::SleepFor(absl::Milliseconds(1));
  }
  return true;
}

absl::Status FileSystem::Unlink(InodeNumber parent_number, std::string_view name) {
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Node> parent, Find(parent_number));
  if (ControlFileOf(*parent, name) != ControlFile::kNone) {
    return StatusFromErrno(EPERM, "a control file cannot be removed");
  }
  const std::string relative = tree_.ChildPath(*parent, name);
  const std::string path = BackingPath(relative);
  const sqlite::FileRole role = sqlite::ClassifyFileName(name).role;
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Database> database,
                          DatabaseForPath(relative, role));
  const auto capture = database ? database->capture() : nullptr;
  const auto unlink_backing = [&path]() {
    const ParentDirectory above(path);
    const bool done = above.fd() >= 0 && unlinkat(above.fd(), above.name(), 0) == 0;
    return done ? absl::OkStatus() : LastError(path);
  };
  if (capture) {
    absl::Status removed = capture->Remove(role, unlink_backing);
    if (absl::IsFailedPrecondition(removed) && role == sqlite::FileRole::kWal &&
        IsAbandoned(*parent, sqlite::ClassifyFileName(name).database)) {
      removed = capture->Remove(role, unlink_backing, /*abandoned=*/true);
    }
    ECHOFS_RETURN_IF_ERROR(removed);
  } else if (database && database->IsDatabase()) {
    return StatusFromErrno(EROFS, fmt::format("{}: this node is a replica", relative));
  } else {
    ECHOFS_RETURN_IF_ERROR(unlink_backing());
  }
  if (database && role == sqlite::FileRole::kMain) databases_->Forget(*database);
  tree_.Remove(parent, name);
  return absl::OkStatus();
}

absl::Status FileSystem::RemoveDirectory(InodeNumber parent_number, std::string_view name) {
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Node> parent, Find(parent_number));
  const std::string path = BackingPath(tree_.ChildPath(*parent, name));
  const ParentDirectory above(path);
  if (above.fd() < 0 || unlinkat(above.fd(), above.name(), AT_REMOVEDIR) != 0) {
    return LastError(path);
  }
  tree_.Remove(parent, name);
  return absl::OkStatus();
}

// A database keeps its name for life, and so do its files and the directories above it (section 11).
absl::Status FileSystem::CheckMovable(const std::string& path, std::string_view name) {
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Database> database,
                          DatabaseForPath(path, sqlite::ClassifyFileName(name).role));
  if ((database && database->IsDatabase()) || databases_->HasDatabaseBelow(path)) {
    return StatusFromErrno(EPERM, fmt::format("{}: a database cannot be renamed", path));
  }
  return absl::OkStatus();
}

absl::Status FileSystem::Rename(InodeNumber parent_number, std::string_view name,
                                InodeNumber new_parent_number, std::string_view new_name,
                                unsigned flags) {
  ECHOFS_RETURN_IF_ERROR(CheckName(new_name));
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Node> parent, Find(parent_number));
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Node> new_parent, Find(new_parent_number));
  if (ControlFileOf(*parent, name) != ControlFile::kNone ||
      ControlFileOf(*new_parent, new_name) != ControlFile::kNone) {
    return StatusFromErrno(EPERM, "a control file cannot be renamed");
  }
  if ((flags & ~static_cast<unsigned>(RENAME_NOREPLACE)) != 0) {
    return StatusFromErrno(EINVAL, "only plain renames are supported");
  }
  const std::string from = tree_.ChildPath(*parent, name);
  const std::string to = tree_.ChildPath(*new_parent, new_name);
  ECHOFS_RETURN_IF_ERROR(CheckMovable(from, name));
  ECHOFS_RETURN_IF_ERROR(CheckMovable(to, new_name));
  const std::string from_path = BackingPath(from);
  const ParentDirectory source(from_path);
  if (source.fd() < 0) return LastError(from_path);
  const ParentDirectory target(BackingPath(to));
  if (target.fd() < 0 ||
      renameat2(source.fd(), source.name(), target.fd(), target.name(), flags) != 0) {
    return LastError(from_path);
  }
  if (const auto database = databases_->Find(from)) databases_->Forget(*database);
  if (const auto database = databases_->Find(to)) databases_->Forget(*database);
  tree_.Rename(parent, name, new_parent, new_name);
  return absl::OkStatus();
}

absl::Status FileSystem::ReadDirectory(InodeNumber number, std::uint64_t offset,
                                       const std::function<bool(const DirectoryEntry&)>& emit) {
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<Node> node, Find(number));
  const std::string path = BackingPath(tree_.Path(*node));
  const int fd = OpenWithoutLinks(path, O_RDONLY | O_DIRECTORY, 0);
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(fd < 0 ? nullptr : fdopendir(fd), closedir);
  if (!directory) return LastError(path);
  if (offset != 0) seekdir(directory.get(), static_cast<long>(offset));
  while (true) {
    errno = 0;
    const dirent* const found = readdir(directory.get());
    if (found == nullptr) return errno == 0 ? absl::OkStatus() : LastError(path);
    const DirectoryEntry entry{found->d_name, found->d_ino,
                               static_cast<mode_t>(DTTOIF(found->d_type)),
                               static_cast<std::uint64_t>(found->d_off)};
    if (!emit(entry)) return absl::OkStatus();
  }
}

bool FileSystem::UnlinkMayWait(InodeNumber parent_number, std::string_view name) {
  const std::shared_ptr<Node> parent = tree_.Find(parent_number);
  if (!parent) return false;
  const sqlite::FileRole role = sqlite::ClassifyFileName(name).role;
  if (role == sqlite::FileRole::kShm || role == sqlite::FileRole::kSuperJournal) return false;
  const std::shared_ptr<Database> database =
      databases_->Find(databases_->MainPath(tree_.ChildPath(*parent, name)));
  const auto capture = database ? database->capture() : nullptr;
  return capture && (role != sqlite::FileRole::kJournal || capture->EndOfJournalMayWait());
}

}  // namespace echofs::fs
