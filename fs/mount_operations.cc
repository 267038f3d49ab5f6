#include "fs/mount_operations.h"

#include <fcntl.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>
#include <vector>

#include "fs/mount_file_operations.h"
#include "fs/mount_request.h"

namespace echofs::fs {
namespace {

void Init(void*, fuse_conn_info* connection) {
  // Off: locks in the daemon, invalidation by mtime, splices (a copy is cheaper than a pipe).
  connection->want &= ~static_cast<unsigned>(
      FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS | FUSE_CAP_AUTO_INVAL_DATA |
      FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE |
      FUSE_CAP_SPLICE_MOVE | FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO);
  connection->want |=
      connection->capable & (FUSE_CAP_EXPLICIT_INVAL_DATA | FUSE_CAP_ATOMIC_O_TRUNC |
                             FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_ASYNC_READ);
  connection->max_write = kReadSizeMax;
  connection->max_background = 64;
  connection->time_gran = 1;
}

void Destroy(void* data) { static_cast<MountContext*>(data)->ended = true; }

void Lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
  const absl::StatusOr<Entry> entry = Files(request).Lookup(parent, name);
  if (!entry.ok() && ErrnoOf(entry.status()) == ENOENT) {
    // A negative entry: SQLite asks for -journal and -wal in every read transaction. Names of control files
    // come and go without the kernel's doing.
    const std::string_view view(name);
    fuse_entry_param none{};
    const bool control = view == kPrimaryFileName || view.ends_with(kPositionSuffix);
    none.entry_timeout = control ? 0 : kCacheSeconds;
    fuse_reply_entry(request, &none);
    return;
  }
  ReplyEntry(request, entry);
}

void Forget(fuse_req_t request, fuse_ino_t inode, std::uint64_t count) {
  Files(request).tree().Forget(inode, count);
  fuse_reply_none(request);
}

void ForgetMulti(fuse_req_t request, std::size_t count, fuse_forget_data* forgets) {
  for (std::size_t i = 0; i < count; ++i) {
    Files(request).tree().Forget(forgets[i].ino, forgets[i].nlookup);
  }
  fuse_reply_none(request);
}

void ReplyAttributes(fuse_req_t request, FileSystem& files, fuse_ino_t inode,
                     const absl::StatusOr<struct stat>& attributes) {
  if (!attributes.ok()) return ReplyStatus(request, attributes.status());
  const auto node = files.tree().Find(inode);
  const bool control = node && node->control != ControlFile::kNone;
  fuse_reply_attr(request, &*attributes, control ? 0 : kCacheSeconds);
}

void GetAttributes(fuse_req_t request, fuse_ino_t inode, fuse_file_info*) {
  ReplyAttributes(request, Files(request), inode, Files(request).GetAttributes(inode));
}

void SetAttributes(fuse_req_t request, fuse_ino_t inode, struct stat* attributes, int to_set,
                   fuse_file_info*) {
  AttributeChange change;
  if ((to_set & FUSE_SET_ATTR_SIZE) != 0) change.size = attributes->st_size;
  if ((to_set & FUSE_SET_ATTR_MODE) != 0) change.mode = attributes->st_mode;
  if ((to_set & FUSE_SET_ATTR_UID) != 0) change.uid = attributes->st_uid;
  if ((to_set & FUSE_SET_ATTR_GID) != 0) change.gid = attributes->st_gid;
  const timespec now{0, UTIME_NOW};
  if ((to_set & FUSE_SET_ATTR_ATIME) != 0) change.access_time = attributes->st_atim;
  if ((to_set & FUSE_SET_ATTR_MTIME) != 0) change.modification_time = attributes->st_mtim;
  if ((to_set & FUSE_SET_ATTR_ATIME_NOW) != 0) change.access_time = now;
  if ((to_set & FUSE_SET_ATTR_MTIME_NOW) != 0) change.modification_time = now;
  FileSystem* const files = &Files(request);
  const auto set = [request, files, inode, change] {
    ReplyAttributes(request, *files, inode, files->SetAttributes(inode, change));
  };
  if (!change.size || !files->TruncateMayWait(inode)) return set();
  const auto truncate = [request, files, inode, size = *change.size, set] {
    if (files->acks() == nullptr) return set();
    RunAcknowledged(request, files->LogTruncate(inode, size), set,
                    [request](const absl::Status& status) { ReplyStatus(request, status); });
  };
  if (files->IsJournal(inode)) return RunSync(request, truncate);
  Context(request).workers->Post(truncate);
}

void ReadLink(fuse_req_t request, fuse_ino_t inode) {
  const absl::StatusOr<std::string> target = Files(request).ReadSymlink(inode);
  if (!target.ok()) return ReplyStatus(request, target.status());
  fuse_reply_readlink(request, target->c_str());
}

void MakeDirectory(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode) {
  FileSystem* const files = &Files(request);
  Run(request, true,
      [request, files, parent, n = std::string(name), mode, caller = CallerOf(request)] {
        ReplyEntry(request, files->MakeDirectory(parent, n, mode, caller));
      });
}

void MakeNode(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, dev_t) {
  if (!S_ISREG(mode)) return ReplyStatus(request, StatusFromErrno(EPERM, "only regular files"));
  const absl::StatusOr<Entry> entry = Files(request).Create(
      parent, name, mode, O_CREAT | O_EXCL | O_RDONLY, CallerOf(request), IsOwn(request));
  if (entry.ok()) {
    Files(request).Release(entry->node->number, O_RDONLY, IsOwn(request)).IgnoreError();
  }
  ReplyEntry(request, entry);
}

void Unlink(fuse_req_t request, fuse_ino_t parent, const char* name) {
  FileSystem* const files = &Files(request);
  const auto unlink = [request, files, parent, n = std::string(name)] {
    ReplyStatus(request, files->Unlink(parent, n));
  };
  if (!files->UnlinkMayWait(parent, name)) return unlink();
  const auto end = [request, files, parent, n = std::string(name), unlink] {
    if (files->acks() == nullptr) return unlink();
    RunAcknowledged(request, files->LogUnlink(parent, n), unlink,
                    [request](const absl::Status& status) { ReplyStatus(request, status); });
  };
  if (std::string_view(name).ends_with(sqlite::kJournalSuffix)) return RunSync(request, end);
  Context(request).workers->Post(end);
}

void RemoveDirectory(fuse_req_t request, fuse_ino_t parent, const char* name) {
  ReplyStatus(request, Files(request).RemoveDirectory(parent, name));
}

void MakeSymlink(fuse_req_t request, const char* target, fuse_ino_t parent, const char* name) {
  ReplyEntry(request, Files(request).MakeSymlink(parent, name, target, CallerOf(request)));
}

void Rename(fuse_req_t request, fuse_ino_t parent, const char* name, fuse_ino_t new_parent,
            const char* new_name, unsigned flags) {
  ReplyStatus(request, Files(request).Rename(parent, name, new_parent, new_name, flags));
}

void Link(fuse_req_t request, fuse_ino_t, fuse_ino_t, const char*) {
  ReplyStatus(request, StatusFromErrno(EPERM, "hard links are not supported"));
}

void OpenDirectory(fuse_req_t request, fuse_ino_t, fuse_file_info* info) {
  info->fh = 0;
  fuse_reply_open(request, info);
}

void ReadDirectory(fuse_req_t request, fuse_ino_t inode, std::size_t size, off_t offset,
                   fuse_file_info*) {
  std::vector<char> buffer(std::min(size, kReadSizeMax));
  std::size_t used = 0;
  const absl::Status status = Files(request).ReadDirectory(
      inode, static_cast<std::uint64_t>(offset), [&](const DirectoryEntry& entry) {
        struct stat attributes {};
        attributes.st_ino = entry.inode;
        attributes.st_mode = entry.type;
        const std::size_t need =
            fuse_add_direntry(request, buffer.data() + used, buffer.size() - used,
                              entry.name.c_str(), &attributes, static_cast<off_t>(entry.next));
        if (need > buffer.size() - used) return false;
        used += need;
        return true;
      });
  if (!status.ok()) return ReplyStatus(request, status);
  fuse_reply_buf(request, buffer.data(), used);
}

void ReleaseDirectory(fuse_req_t request, fuse_ino_t, fuse_file_info*) {
  fuse_reply_err(request, 0);
}

void SyncDirectory(fuse_req_t request, fuse_ino_t inode, int, fuse_file_info*) {
  FileSystem* const files = &Files(request);
  RunSync(request, [request, files, inode] { ReplyStatus(request, files->SyncDirectory(inode)); });
}

void StatFileSystem(fuse_req_t request, fuse_ino_t) {
  struct statvfs st;
  if (statvfs(Files(request).root().c_str(), &st) != 0) {
    fuse_reply_err(request, errno);
    return;
  }
  fuse_reply_statfs(request, &st);
}

}  // namespace

const fuse_lowlevel_ops& MountOperations() {
  static const fuse_lowlevel_ops operations = [] {
    fuse_lowlevel_ops table{};
    table.init = Init;
    table.destroy = Destroy;
    table.lookup = Lookup;
    table.forget = Forget;
    table.forget_multi = ForgetMulti;
    table.getattr = GetAttributes;
    table.setattr = SetAttributes;
    table.readlink = ReadLink;
    table.mknod = MakeNode;
    table.mkdir = MakeDirectory;
    table.unlink = Unlink;
    table.rmdir = RemoveDirectory;
    table.symlink = MakeSymlink;
    table.rename = Rename;
    table.link = Link;
    table.opendir = OpenDirectory;
    table.readdir = ReadDirectory;
    table.releasedir = ReleaseDirectory;
    table.fsyncdir = SyncDirectory;
    table.statfs = StatFileSystem;
    SetFileOperations(&table);
    return table;
  }();
  return operations;
}

}  // namespace echofs::fs
