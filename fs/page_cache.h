// What the kernel holds of our files (design section 1). The daemon never reads, writes or maps a file of
// its own mount; it touches the kernel's copy only through this interface. The mount implements it with
// FUSE notifications; tests write into the plain file that SQLite has open.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "replication/bytes.h"

namespace echofs::fs {

// Number of a file in the mount; never reused while the mount lives. 0 is none, 1 the root directory.
using InodeNumber = std::uint64_t;

// Thread-safe. A call may wait until a READ of the same page has been served: never hold a lock across it
// that serving a READ needs.
class PageCache {
 public:
  virtual ~PageCache() = default;

  // Puts bytes into the kernel's copy, growing the size it knows. OK when the kernel does not know the
  // inode: then there is no copy. Whole aligned 8-byte words are stored so that a reader sees each of
  // them old or new, never mixed.
  virtual absl::Status Store(InodeNumber inode, std::uint64_t offset, ByteView bytes) = 0;
  // The bytes that the kernel has cached from `offset` on, at most `size`; may be fewer, or none.
  virtual absl::StatusOr<std::vector<std::uint8_t>> Retrieve(InodeNumber inode,
                                                             std::uint64_t offset,
                                                             std::size_t size) = 0;
  // Drops the kernel's copy of a range and its attributes; size 0 means to the end of the file.
  virtual absl::Status Invalidate(InodeNumber inode, std::uint64_t offset, std::uint64_t size) = 0;
  // Makes the kernel ask for the attributes again; its data stays.
  virtual absl::Status InvalidateAttributes(InodeNumber /*inode*/) { return absl::OkStatus(); }
  // Makes the kernel forget what it knows of a name in a directory, also that it does not exist.
  virtual absl::Status InvalidateEntry(InodeNumber directory, const std::string& name) = 0;
};

}  // namespace echofs::fs
