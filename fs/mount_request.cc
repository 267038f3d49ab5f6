#include "fs/mount_request.h"

#include <fmt/format.h>
#include <unistd.h>

namespace echofs::fs {

MountContext& Context(fuse_req_t request) {
  return *static_cast<MountContext*>(fuse_req_userdata(request));
}

FileSystem& Files(fuse_req_t request) { return *Context(request).file_system; }

Caller CallerOf(fuse_req_t request) {
  const fuse_ctx* const context = fuse_req_ctx(request);
  return {context->uid, context->gid};
}

bool IsOwn(fuse_req_t request) {
  const pid_t pid = fuse_req_ctx(request)->pid;
  if (pid <= 0) return false;
  return access(fmt::format("/proc/self/task/{}", pid).c_str(), F_OK) == 0;
}

void ReplyStatus(fuse_req_t request, const absl::Status& status) {
  const int error = ErrnoOf(status);
  FuseMetrics* const metrics = Context(request).metrics;
  if (error != 0 && metrics != nullptr) metrics->CountError(error);
  fuse_reply_err(request, error);
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

}  // namespace echofs::fs
