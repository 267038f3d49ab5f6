#include "replication/digest.h"

#include <xxhash.h>

namespace echofs {

std::uint64_t PageHash(PageNumber number, ByteView page) {
  return XXH3_64bits_withSeed(page.data(), page.size(), number);
}

}  // namespace echofs
