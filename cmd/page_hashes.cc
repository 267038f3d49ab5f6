#include "cmd/page_hashes.h"

#include "replication/digest.h"

namespace echofs::cmd {

void PageHashes::Add(PageNumber first, ByteView pages) {
  const std::size_t count = pages.size() / page_size_;
  const std::size_t end = first - 1 + count;
  if (hashes_.size() < end) Resize(static_cast<PageNumber>(end));
  for (std::size_t i = 0; i < count; ++i) {
    const auto number = static_cast<PageNumber>(first + i);
    hashes_[number - 1] = PageHash(number, pages.subspan(i * page_size_, page_size_));
    known_[number - 1] = true;
  }
}

void PageHashes::Resize(PageNumber page_count) {
  hashes_.resize(page_count);
  known_.resize(page_count);
}

std::uint64_t PageHashes::Digest() const {
  const std::vector<std::uint8_t> zeros(page_size_);
  std::uint64_t digest = 0;
  for (std::size_t i = 0; i < hashes_.size(); ++i) {
    const auto number = static_cast<PageNumber>(i + 1);
    if (number == LockPage(page_size_)) continue;
    digest += known_[i] ? hashes_[i] : PageHash(number, zeros);
  }
  return digest;
}

}  // namespace echofs::cmd
