// A set of page numbers, as ranges: small where pages lie side by side.
#pragma once

#include <cstdint>
#include <map>

#include "replication/ids.h"

namespace echofs {

// A value; not thread-safe.
class PageSet {
 public:
  // Adds the pages from `first` to `last`, both included; nothing when last < first. Page numbers begin at 1.
  void Add(PageNumber first, PageNumber last);
  void Add(PageNumber page) { Add(page, page); }
  void Add(const PageSet& other);
  // Removes the pages after `last`.
  void CutAfter(PageNumber last);

  bool Contains(PageNumber page) const;
  // Pages in the set.
  std::uint64_t size() const { return size_; }
  bool empty() const { return ranges_.empty(); }
  // First page -> last page, ascending; neither overlapping nor adjacent.
  const std::map<PageNumber, PageNumber>& ranges() const { return ranges_; }

  friend bool operator==(const PageSet&, const PageSet&) = default;

 private:
  std::map<PageNumber, PageNumber> ranges_;
  std::uint64_t size_ = 0;
};

}  // namespace echofs
