#include "cmd/page_hashes.h"

#include <vector>

#include "replication/digest.h"
#include "tests/catch.h"

namespace echofs::cmd {
namespace {

constexpr std::uint32_t kPageSize = 512;

std::vector<std::uint8_t> Pages(std::size_t count, std::uint8_t value) {
  return std::vector<std::uint8_t>(count * kPageSize, value);
}

std::uint64_t HashOf(PageNumber number, std::uint8_t value) {
  return PageHash(number, Pages(1, value));
}

TEST_CASE("C8: pages may come several times, the last one counts") {
  PageHashes hashes(kPageSize);
  hashes.Add(1, Pages(3, 7));
  hashes.Add(2, Pages(1, 8));
  CHECK(hashes.Digest() == HashOf(1, 7) + HashOf(2, 8) + HashOf(3, 7));
}

TEST_CASE("C8: pages that never came are zeros, pages that were cut off are forgotten") {
  PageHashes hashes(kPageSize);
  hashes.Add(1, Pages(3, 7));
  hashes.Resize(1);
  hashes.Resize(3);
  CHECK(hashes.Digest() == HashOf(1, 7) + HashOf(2, 0) + HashOf(3, 0));
  hashes.Add(5, Pages(1, 9));
  CHECK(hashes.Digest() ==
        HashOf(1, 7) + HashOf(2, 0) + HashOf(3, 0) + HashOf(4, 0) + HashOf(5, 9));
}

TEST_CASE("C8: the lock page does not count") {
  const PageNumber lock_page = LockPage(65536);
  const std::vector<std::uint8_t> page(65536, 1);
  PageHashes hashes(65536);
  hashes.Add(lock_page, page);
  const std::uint64_t before = hashes.Digest();
  hashes.Resize(lock_page - 1);
  CHECK(hashes.Digest() == before);
}

}  // namespace
}  // namespace echofs::cmd
