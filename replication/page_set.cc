#include "replication/page_set.h"

#include <algorithm>
#include <iterator>

namespace echofs {
namespace {

std::uint64_t Count(PageNumber first, PageNumber last) { return std::uint64_t{last} - first + 1; }

}  // namespace

void PageSet::Add(PageNumber first, PageNumber last) {
  if (first == 0 || last < first) return;
  auto next = ranges_.upper_bound(first);
  if (next != ranges_.begin()) {
    const auto before = std::prev(next);
    if (before->second >= last) return;
    if (std::uint64_t{before->second} + 1 >= first) next = before;
  }
  while (next != ranges_.end() && next->first <= std::uint64_t{last} + 1) {
    first = std::min(first, next->first);
    last = std::max(last, next->second);
    size_ -= Count(next->first, next->second);
    next = ranges_.erase(next);
  }
  ranges_.emplace(first, last);
  size_ += Count(first, last);
}

void PageSet::Add(const PageSet& other) {
  for (const auto& [first, last] : other.ranges_) Add(first, last);
}

void PageSet::CutAfter(PageNumber last) {
  while (!ranges_.empty() && ranges_.rbegin()->second > last) {
    const auto [first, end] = *ranges_.rbegin();
    ranges_.erase(std::prev(ranges_.end()));
    size_ -= Count(first, end);
    Add(first, std::min(last, end));
  }
}

bool PageSet::Contains(PageNumber page) const {
  const auto after = ranges_.upper_bound(page);
  return after != ranges_.begin() && std::prev(after)->second >= page;
}

}  // namespace echofs
