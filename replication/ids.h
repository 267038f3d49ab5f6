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
// Number of a tenure as primary; only grows; the fencing token. See below for what is odd and what is even.
using Term = StrongNumber<struct TermTag>;

// Leases give odd terms only. The even term after one belongs to the node that led it, and to its recovery: what a former
// primary finds in its databases' files at a start and its log lacks is appended in that term, not in the one that it
// led. For a power loss can take entries from the end of its log that replicas have already, (T, 105) say. What it
// recovers would become another (T, 105), and two logs that have the same term at an index are taken for the same up
// to there (L3, log_match.h). As (T + 1, 105) it is nobody else's:
//
// - The role "primary" is saved only once the entry that opens T is durable (node_roles.cc), so a node that recovers as a
//   primary has led the last odd term of its log, and nobody else has.
// - Entries are sent by a primary alone. Before this node leads again, in a term above T + 1, nobody has seen what it
//   recovered; if that is lost in one more crash, the next recovery may use T + 1 once more. When it leads again, the
//   entry that opens its new term is durable, and with it all that is before.
inline Term NextLeaseTerm(Term last) { return {(last.value + 1) | 1}; }
inline Term RecoveryTerm(Term last) {
  return {last.value == 0 ? 2 : (last.value + 1) & ~std::uint64_t{1}};
}
// The term that the lease gave: of a recovery, that of the tenure which it completes.
inline Term LeaseTermOf(Term term) { return {term.value == 0 ? 0 : (term.value - 1) | 1}; }

// Number of a page within its database, as in SQLite: the first is 1.
using PageNumber = std::uint32_t;

}  // namespace echofs
