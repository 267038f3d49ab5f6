#include "fs/mount_file_operations.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fs/mount_request.h"

namespace echofs::fs {
namespace {

// File handle of the daemon's own descriptors; a RELEASE does not say whose it is.
constexpr std::uint64_t kOwnHandle = 1;

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
  if (!own) {
    const absl::Status allowed = files->CheckOpener(inode, fuse_req_ctx(request)->pid);
    if (!allowed.ok()) return ReplyStatus(request, allowed);
  }
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
  if (!own) {
    const absl::Status allowed = files.CheckCreator(parent, name, fuse_req_ctx(request)->pid);
    if (!allowed.ok()) return ReplyStatus(request, allowed);
  }
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

// For workers: what may need the threads that serve requests. Nothing is done when the mount stops.
template <class Work>
void WhileServing(fuse_req_t request, Work work) {
  MountContext& context = Context(request);
  ++context.repairs;
  if (!context.stopping) work(*context.file_system);
  --context.repairs;
}

// No wal-index survives the mount.
void RepairIndex(fuse_req_t request, fuse_ino_t inode) {
  WhileServing(request, [request, inode](FileSystem& files) {
    files.RepairIndex(inode, fuse_req_ctx(request)->pid);
  });
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

// Answers when the commits of a WAL are acknowledged; a failure leaves them in doubt.
template <class Reply>
void ReplyAcknowledged(fuse_req_t request, fuse_ino_t inode,
                       const absl::StatusOr<LogIndex>& commits, Reply reply) {
  CommitAcks* const acks = Files(request).acks();
  if (!commits.ok()) return ReplyFailure(request, inode, commits.status());
  if (acks == nullptr || commits->value == 0) return reply();
  acks->Wait(*commits, [request, inode, reply](const absl::Status& status) {
    if (status.ok()) return reply();
    Files(request).SetInDoubt(inode);
    ReplyFailure(request, inode, status);
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
  const bool always = files->acks() != nullptr && files->WriteIsAcknowledged(inode);
  const bool first_part = files->IsFirstPartOfFrame(inode, position, size);
  if (!always && !first_part && !files->WriteMayWait(inode, position, size)) {
    return reply(files->Write(inode, position, bytes));
  }
  Context(request).workers->Post([request, files, inode, position, reply, always, first_part,
                                  copy = std::vector<std::uint8_t>(bytes.begin(), bytes.end())] {
    if (first_part) {
      const std::uint64_t end = position + copy.size();
      WhileServing(request, [inode, end](FileSystem& f) { f.StoreOldWal(inode, end); });
    }
    if (files->acks() == nullptr) return reply(files->Write(inode, position, copy));
    const absl::StatusOr<LogIndex> logged = files->LogWrite(inode, position, copy);
    RunAcknowledged(
        request, logged,
        [request, files, inode, position, reply, always, copy] {
          const absl::Status written = files->Write(inode, position, copy);
          if (!written.ok() || !always) return reply(written);
          ReplyAcknowledged(request, inode, files->WrittenCommits(inode),
                            [reply] { reply(absl::OkStatus()); });
        },
        reply);
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
  if (files->PutOffSync(inode)) {
    fuse_reply_err(request, 0);
    return;
  }
  RunSync(request, [request, files, inode] {
    ReplyAcknowledged(request, inode, files->Sync(inode),
                      [request] { fuse_reply_err(request, 0); });
  });
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

void SetFileOperations(fuse_lowlevel_ops* table) {
  table->open = Open;
  table->create = Create;
  table->release = Release;
  table->read = Read;
  table->write = Write;
  table->flush = Flush;
  table->fsync = Sync;
  table->fallocate = Allocate;
  table->retrieve_reply = RetrieveReply;
}

}  // namespace echofs::fs
