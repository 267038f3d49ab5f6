// The digest of a database that comes page by page, each maybe several times (replication/database_export.h). Takes
// eight bytes of memory and a bit for a page.
#pragma once

#include <cstdint>
#include <vector>

#include "replication/bytes.h"
#include "replication/ids.h"

namespace echofs::cmd {

// One thread.
class PageHashes {
 public:
  // `page_size` in bytes.
  explicit PageHashes(std::uint32_t page_size) : page_size_(page_size) {}

  // Whole pages, which take the place of those that came before.
  void Add(PageNumber first, ByteView pages);
  // Forgets the pages beyond; those that are missing up to here count as zeros.
  void Resize(PageNumber page_count);
  // Of the database with as many pages as Resize said last.
  std::uint64_t Digest() const;

 private:
  const std::uint32_t page_size_;
  // From page 1 on.
  std::vector<std::uint64_t> hashes_;
  std::vector<bool> known_;
};

}  // namespace echofs::cmd
