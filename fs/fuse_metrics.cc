#include "fs/fuse_metrics.h"

#include <linux/fuse.h>

namespace echofs::fs {

void FuseMetrics::CountRequest(const void* request, std::size_t size) {
  if (size < sizeof(fuse_in_header)) return;
  const std::uint32_t opcode = static_cast<const fuse_in_header*>(request)->opcode;
  requests_[opcode < kOperations ? opcode : 0].Add();
}

void FuseMetrics::CountError(int error) {
  errors_[error > 0 && static_cast<std::size_t>(error) < kErrors ? static_cast<std::size_t>(error)
                                                                 : 0]
      .Add();
}

const char* FuseOperationName(std::size_t opcode) {
  switch (opcode) {
    case FUSE_LOOKUP:
      return "lookup";
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
      return "forget";
    case FUSE_GETATTR:
      return "getattr";
    case FUSE_SETATTR:
      return "setattr";
    case FUSE_READLINK:
      return "readlink";
    case FUSE_SYMLINK:
      return "symlink";
    case FUSE_MKNOD:
      return "mknod";
    case FUSE_MKDIR:
      return "mkdir";
    case FUSE_UNLINK:
      return "unlink";
    case FUSE_RMDIR:
      return "rmdir";
    case FUSE_RENAME:
    case FUSE_RENAME2:
      return "rename";
    case FUSE_LINK:
      return "link";
    case FUSE_OPEN:
      return "open";
    case FUSE_CREATE:
      return "create";
    case FUSE_READ:
      return "read";
    case FUSE_WRITE:
      return "write";
    case FUSE_STATFS:
      return "statfs";
    case FUSE_RELEASE:
      return "release";
    case FUSE_FSYNC:
      return "fsync";
    case FUSE_FLUSH:
      return "flush";
    case FUSE_OPENDIR:
      return "opendir";
    case FUSE_READDIR:
      return "readdir";
    case FUSE_RELEASEDIR:
      return "releasedir";
    case FUSE_FSYNCDIR:
      return "fsyncdir";
    case FUSE_FALLOCATE:
      return "fallocate";
    default:
      return nullptr;
  }
}

}  // namespace echofs::fs
