#include "fs/mount_operations.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace echofs::fs {
namespace {

// The kernel's copies stay valid until the daemon says otherwise (design section 1).
constexpr double kCacheSeconds = 86400;
// File handle of the daemon's own descriptors; a RELEASE does not say whose it is.
constexpr std::uint64_t kOwnHandle = 1;
constexpr std::size_t kReadSizeMax = 1 << 20;  // bytes, as negotiated with the kernel

MountContext& Context(fuse_req_t request) {
  return *static_cast<MountContext*>(fuse_req_userdata(request));
}

FileSystem& Files(fuse_req_t request) { return *Context(request).file_system; }

Caller CallerOf(fuse_req_t request) {
  const fuse_ctx* const context = fuse_req_ctx(request);
  return {context->uid, context->gid};
}

// The pid of a FUSE request is a thread's: ours when it is one of our tasks.
bool IsOwn(fuse_req_t request) {
  const pid_t pid = fuse_req_ctx(request)->pid;
  if (pid <= 0) return false;
  return access(fmt::format("/proc/self/task/{}", pid).c_str(), F_OK) == 0;
}

void ReplyStatus(fuse_req_t request, const absl::Status& status) {
  fuse_reply_err(request, ErrnoOf(status));
}

fuse_entry_param EntryParam(const Entry& entry) {
  fuse_entry_param param{};
  param.ino = entry.node->number;
  param.attr = entry.attributes;
  const bool control = entry.node->control != ControlFile::kNone;
  param.attr_timeout = param.entry_timeout = control ? 0 : kCacheSeconds;
  return param;
}

void ReplyEntry(fuse_req_t request, const absl::StatusOr<Entry>& entry) {
  if (!entry.ok()) return ReplyStatus(request, entry.status());
  const fuse_entry_param param = EntryParam(*entry);
  FileSystem& files = Files(request);
  if (fuse_reply_entry(request, &param) == -ENOENT) {
    files.tree().Forget(entry->node->number, 1);  // the request was interrupted
  }
}

// Runs `work` here, or where it may wait. `work` sends the reply.
template <class Work>
void Run(fuse_req_t request, bool may_wait, Work work) {
  if (may_wait) {
    Context(request).workers->Post(std::move(work));
  } else {
    work();
  }
}

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
  Run(request, change.size && files->TruncateMayWait(inode), [request, files, inode, change] {
    ReplyAttributes(request, *files, inode, files->SetAttributes(inode, change));
  });
}

void ReadLink(fuse_req_t request, fuse_ino_t inode) {
  const absl::StatusOr<std::string> target = Files(request).ReadSymlink(inode);
  if (!target.ok()) return ReplyStatus(request, target.status());
  fuse_reply_readlink(request, target->c_str());
}

void MakeDirectory(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode) {
  ReplyEntry(request, Files(request).MakeDirectory(parent, name, mode, CallerOf(request)));
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
  Run(request, files->UnlinkMayWait(parent, name), [request, files, parent, n = std::string(name)] {
    ReplyStatus(request, files->Unlink(parent, n));
  });
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

void SetOpenFlags(fuse_req_t request, fuse_ino_t inode, bool own, fuse_file_info* info) {
  const auto node = Files(request).tree().Find(inode);
  info->direct_io = node && node->control != ControlFile::kNone;
  info->keep_cache = !info->direct_io;
  info->noflush = own || !Files(request).WantsFlush(inode);
  info->fh = own ? kOwnHandle : 0;
}

void Open(fuse_req_t request, fuse_ino_t inode, fuse_file_info* info) {
  FileSystem* const files = &Files(request);
  const bool own = IsOwn(request);
  const bool may_wait = (info->flags & O_TRUNC) != 0 && files->TruncateMayWait(inode);
  Run(request, may_wait, [request, files, inode, own, opened = *info]() mutable {
    const absl::Status status = files->Open(inode, opened.flags, own);
    if (!status.ok()) return ReplyStatus(request, status);
    SetOpenFlags(request, inode, own, &opened);
    if (fuse_reply_open(request, &opened) == -ENOENT) {
      files->Release(inode, opened.flags, own).IgnoreError();
    }
  });
}

void Create(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode,
            fuse_file_info* info) {
  FileSystem& files = Files(request);
  const bool own = IsOwn(request);
  const absl::StatusOr<Entry> entry =
      files.Create(parent, name, mode, info->flags, CallerOf(request), own);
  if (!entry.ok()) return ReplyStatus(request, entry.status());
  const InodeNumber inode = entry->node->number;
  SetOpenFlags(request, inode, own, info);
  const fuse_entry_param param = EntryParam(*entry);
  if (fuse_reply_create(request, &param, info) == -ENOENT) {
    files.Release(inode, info->flags, own).IgnoreError();
    files.tree().Forget(inode, 1);
  }
}

void Release(fuse_req_t request, fuse_ino_t inode, fuse_file_info* info) {
  FileSystem* const files = &Files(request);
  const bool writer = (info->flags & O_ACCMODE) != O_RDONLY;
  Run(request, writer, [request, files, inode, flags = info->flags, own = info->fh == kOwnHandle] {
    ReplyStatus(request, files->Release(inode, flags, own));
  });
}

void Read(fuse_req_t request, fuse_ino_t inode, std::size_t size, off_t offset, fuse_file_info*) {
  FileSystem& files = Files(request);
  if (const std::optional<std::string> text = files.ControlText(inode)) {
    const std::size_t from = std::min(text->size(), static_cast<std::size_t>(offset));
    fuse_reply_buf(request, text->data() + from, std::min(size, text->size() - from));
    return;
  }
  static thread_local std::vector<std::uint8_t> buffer;
  buffer.resize(std::min(size, kReadSizeMax));
  const absl::StatusOr<std::size_t> n =
      files.Read(inode, static_cast<std::uint64_t>(offset), buffer);
  if (!n.ok()) return ReplyStatus(request, n.status());
  fuse_reply_buf(request, reinterpret_cast<const char*>(buffer.data()), *n);
}

// For workers. Nothing is done when the mount stops: no wal-index survives it.
void RepairIndex(fuse_req_t request, fuse_ino_t inode) {
  MountContext& context = Context(request);
  ++context.repairs;
  if (!context.stopping) {
    context.file_system->RepairIndex(inode, fuse_req_ctx(request)->pid);
  }
  --context.repairs;
}

// Answers with the error of an operation on a file's data, after the wal-index has been seen to (design C3).
void ReplyFailure(fuse_req_t request, fuse_ino_t inode, const absl::Status& status) {
  FileSystem* const files = &Files(request);
  if (!files->ErrorNeedsRepair(inode)) return ReplyStatus(request, status);
  Context(request).workers->Post([request, inode, status] {
    RepairIndex(request, inode);
    ReplyStatus(request, status);
  });
}

void Write(fuse_req_t request, fuse_ino_t inode, const char* data, std::size_t size, off_t offset,
           fuse_file_info*) {
  FileSystem* const files = &Files(request);
  const auto position = static_cast<std::uint64_t>(offset);
  const ByteView bytes(reinterpret_cast<const std::uint8_t*>(data), size);
  const auto reply = [request, inode, size](const absl::Status& status) {
    if (!status.ok()) return ReplyFailure(request, inode, status);
    fuse_reply_write(request, size);
  };
  if (!files->WriteMayWait(inode, position, size))
    return reply(files->Write(inode, position, bytes));
  Context(request).workers->Post([files, inode, position, reply,
                                  copy = std::vector<std::uint8_t>(bytes.begin(), bytes.end())] {
    reply(files->Write(inode, position, copy));
  });
}

void Flush(fuse_req_t request, fuse_ino_t inode, fuse_file_info*) {
  FileSystem* const files = &Files(request);
  if (!files->FlushNeedsRepair(inode)) {
    fuse_reply_err(request, 0);
    return;
  }
  Context(request).workers->Post([request, inode] {
    RepairIndex(request, inode);
    fuse_reply_err(request, 0);  // the application could do nothing about an error
  });
}

void Sync(fuse_req_t request, fuse_ino_t inode, int, fuse_file_info*) {
  FileSystem* const files = &Files(request);
  Run(request, true, [request, files, inode] {
    const absl::Status status = files->Sync(inode);
    if (!status.ok()) return ReplyFailure(request, inode, status);
    fuse_reply_err(request, 0);
  });
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
  Run(request, true,
      [request, files, inode] { ReplyStatus(request, files->SyncDirectory(inode)); });
}

void StatFileSystem(fuse_req_t request, fuse_ino_t) {
  struct statvfs st;
  if (statvfs(Files(request).root().c_str(), &st) != 0) {
    fuse_reply_err(request, errno);
    return;
  }
  fuse_reply_statfs(request, &st);
}

// posix_fallocate must work: its emulation in libc would write into the database.
void Allocate(fuse_req_t request, fuse_ino_t inode, int mode, off_t offset, off_t length,
              fuse_file_info*) {
  if (mode != 0) {
    fuse_reply_err(request, EOPNOTSUPP);
    return;
  }
  ReplyStatus(request, Files(request).Allocate(inode, static_cast<std::uint64_t>(offset + length)));
}

void RetrieveReply(fuse_req_t request, void* cookie, fuse_ino_t, off_t, fuse_bufvec* buffers) {
  std::vector<std::uint8_t> bytes(fuse_buf_size(buffers));
  fuse_bufvec copy = FUSE_BUFVEC_INIT(bytes.size());
  copy.buf[0].mem = bytes.data();
  const ssize_t n = fuse_buf_copy(&copy, buffers, static_cast<fuse_buf_copy_flags>(0));
  bytes.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
  Context(request).page_cache->OnRetrieveReply(reinterpret_cast<std::uint64_t>(cookie),
                                               std::move(bytes));
  fuse_reply_none(request);
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
    table.open = Open;
    table.create = Create;
    table.release = Release;
    table.read = Read;
    table.write = Write;
    table.flush = Flush;
    table.fsync = Sync;
    table.opendir = OpenDirectory;
    table.readdir = ReadDirectory;
    table.releasedir = ReleaseDirectory;
    table.fsyncdir = SyncDirectory;
    table.statfs = StatFileSystem;
    table.fallocate = Allocate;
    table.retrieve_reply = RetrieveReply;
    return table;
  }();
  return operations;
}

}  // namespace echofs::fs
