// The digest of a database (design C8): the sum modulo 2^64 of XXH3_64(page, seed = page number)
// over all pages but the lock page. A change of one page changes it by new hash minus old hash.
#pragma once

#include <cstdint>

#include "replication/bytes.h"
#include "replication/ids.h"

namespace echofs {

// Page that SQLite never uses: it holds the lock bytes. `page_size` in bytes.
constexpr PageNumber LockPage(std::uint32_t page_size) { return 0x40000000u / page_size + 1; }

// True for the page sizes that SQLite knows: powers of two, 512 to 65536.
constexpr bool IsValidPageSize(std::uint64_t n) {
  return n >= 512 && n <= 65536 && (n & (n - 1)) == 0;
}

// Hash of one page's content.
std::uint64_t PageHash(PageNumber number, ByteView page);

}  // namespace echofs
