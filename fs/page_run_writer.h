// Writes pages into a database file: first the backing file, then the kernel's copy, neighbours in
// one go.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "fs/page_cache.h"
#include "replication/ids.h"
#include "replication/storage.h"

namespace echofs::fs {

// One thread. Owns nothing that is passed to it.
class PageRunWriter {
 public:
  PageRunWriter(File* file, InodeNumber inode, PageCache* cache, std::uint32_t page_size)
      : file_(file), inode_(inode), cache_(cache), page_size_(page_size) {}

  // Any order; consecutive page numbers are joined. The page may be written now or later.
  absl::Status Add(PageNumber number, ByteView page);
  // Writes what is left.
  absl::Status Flush();

 private:
  File* const file_;
  const InodeNumber inode_;
  PageCache* const cache_;
  const std::uint32_t page_size_;
  PageNumber first_ = 0;  // of the run in run_
  std::vector<std::uint8_t> run_;
};

}  // namespace echofs::fs
