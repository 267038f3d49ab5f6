// Strong types for the numbers that must not be mixed up. A value type costs nothing over the integer.
#pragma once

#include <cstdint>

namespace echofs {

// A number of the kind named by Tag. Zero means "none yet" for all of them.
template <class Tag>
struct StrongNumber {
  std::uint64_t value = 0;

  // Not <=>: clang-tidy 14 takes the 0 that its result is compared with for a null pointer.
  friend bool operator==(const StrongNumber&, const StrongNumber&) = default;
  friend bool operator<(const StrongNumber& a, const StrongNumber& b) { return a.value < b.value; }
  friend bool operator>(const StrongNumber& a, const StrongNumber& b) { return b < a; }
  friend bool operator<=(const StrongNumber& a, const StrongNumber& b) { return !(b < a); }
  friend bool operator>=(const StrongNumber& a, const StrongNumber& b) { return !(a < b); }
  StrongNumber Next() const { return {value + 1}; }
  StrongNumber Previous() const { return {value - 1}; }
};

// Number of a change set within its database: +1 for each, no gaps, the first is 1.
using Txid = StrongNumber<struct TxidTag>;
// Position of an entry in the log, the same on every node: +1 for each, the first is 1.
using LogIndex = StrongNumber<struct LogIndexTag>;
// Number of a tenure as primary; only grows; the fencing token.
using Term = StrongNumber<struct TermTag>;

// Number of a page within its database, as in SQLite: the first is 1.
using PageNumber = std::uint32_t;

}  // namespace echofs
