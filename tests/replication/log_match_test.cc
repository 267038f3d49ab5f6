// Where two logs part (L3), against brute force over random histories.
#include "replication/log_match.h"

#include <algorithm>
#include <random>

#include "tests/catch.h"

namespace echofs {
namespace {

// Every entry as what it is: its term, and who wrote it.
struct Log {
  struct Entry {
    std::uint64_t term;
    int writer;
    friend bool operator==(const Entry&, const Entry&) = default;
  };
  std::vector<Entry> entries;
  TermHistory terms;

  LogIndex end() const { return {entries.size()}; }
  void Append(std::uint64_t term, int writer) {
    entries.push_back({term, writer});
    terms.Add(end(), {term});
  }
  void CutAfter(std::size_t size) {
    entries.resize(size);
    terms.CutAfter({size});
  }
  // Follows the other log from `from` entries on.
  void Take(const Log& other, std::size_t from, std::size_t to) {
    CutAfter(from);
    for (std::size_t i = from; i < to; ++i) Append(other.entries[i].term, other.entries[i].writer);
  }
};

std::size_t BruteForce(const Log& a, const Log& b) {
  for (std::size_t i = std::min(a.entries.size(), b.entries.size()); i > 0; --i) {
    if (a.entries[i - 1] == b.entries[i - 1]) return i;
  }
  return 0;
}

// The newest `count` terms, as after a reset or a long life.
TermHistory Newest(const TermHistory& terms, std::size_t count) {
  std::vector<TermStart> starts = terms.starts();
  if (starts.size() > count) starts.erase(starts.begin(), starts.end() - static_cast<long>(count));
  return *TermHistory::FromStarts(std::move(starts));
}

// Tenures: any node may become primary with any log, others follow it or do not hear of it.
void Evolve(std::mt19937& random, std::vector<Log>& nodes, std::uint64_t term) {
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  const std::size_t primary = below(nodes.size());
  const std::size_t entries = 1 + below(4);
  for (std::size_t i = 0; i < entries; ++i) nodes[primary].Append(term, static_cast<int>(primary));
  for (std::size_t other = 0; other < nodes.size(); ++other) {
    if (other == primary || below(2) == 0) continue;
    const std::size_t common = BruteForce(nodes[primary], nodes[other]);
    const std::size_t end = nodes[primary].entries.size();
    nodes[other].Take(nodes[primary], common, common + below(end - common + 1));
  }
}

TEST_CASE("the common point of random logs is the one that brute force finds (L3)") {
  int known = 0;
  int unknown = 0;
  for (std::uint32_t seed = 0; seed < 2000; ++seed) {
    std::mt19937 random(seed);
    std::vector<Log> nodes(3);
    for (std::uint64_t term = 1; term < 12; ++term) {
      Evolve(random, nodes, term);
      for (const Log& a : nodes) {
        for (const Log& b : nodes) {
          const CommonPoint point = FindCommonPoint(a.terms, a.end(), b.terms, b.end());
          const std::size_t expected = BruteForce(a, b);
          INFO("seed " << seed << " term " << term);
          REQUIRE(point.known);
          REQUIRE(point.index.value == expected);
          REQUIRE(point.term.value == (expected == 0 ? 0 : a.entries[expected - 1].term));
          // What was forgotten makes it unknown, never wrong.
          const CommonPoint partial = FindCommonPoint(Newest(a.terms, 1 + random() % 3), a.end(),
                                                      Newest(b.terms, 1 + random() % 3), b.end());
          REQUIRE(
              (partial.known ? partial.index.value == expected : partial.index.value >= expected));
          ++(partial.known ? known : unknown);
        }
      }
    }
  }
  CHECK(known > 1000);
  CHECK(unknown > 1000);
}

TEST_CASE("the same term number taken by two nodes is two terms") {
  Log a;
  Log b;
  for (int i = 0; i < 3; ++i) a.Append(1, 0);
  b.Take(a, 0, 3);
  a.Append(1, 0);
  a.Append(2, 0);
  b.Append(2, 1);
  b.Append(2, 1);
  const CommonPoint point = FindCommonPoint(a.terms, a.end(), b.terms, b.end());
  CHECK(point.known);
  CHECK(point.index == LogIndex{3});
}

TEST_CASE("a history that begins after a base does not claim to know more") {
  TermHistory joined = TermHistory::FromBase({100}, {7});
  CHECK(joined.TermAt({100}) == Term{7});
  CHECK(!joined.TermAt({99}).has_value());
  CHECK(joined.TermAt({}) == Term{});
  joined.Add({101}, {9});
  TermHistory whole;
  whole.Add({1}, {2});
  whole.Add({50}, {7});
  const CommonPoint behind = FindCommonPoint(joined, {101}, whole, {60});
  CHECK(!behind.known);
  CHECK(behind.index == LogIndex{60});
  const CommonPoint ahead = FindCommonPoint(joined, {101}, whole, {100});
  CHECK(ahead.known);
  CHECK(ahead.index == LogIndex{100});
}

TEST_CASE("impossible histories are refused, long ones forget their oldest terms") {
  CHECK(!TermHistory::FromStarts({{{2}, {1}}, {{2}, {5}}}).has_value());
  CHECK(!TermHistory::FromStarts({{{2}, {5}}, {{3}, {5}}}).has_value());
  CHECK(!TermHistory::FromStarts({{{0}, {1}}}).has_value());
  CHECK(!TermHistory::FromStarts({{{1}, {0}}}).has_value());
  TermHistory history;
  for (std::uint64_t i = 1; i <= kTermHistoryMax + 10; ++i) history.Add({2 * i}, {i});
  CHECK(history.starts().size() == kTermHistoryMax);
  CHECK(history.starts().front() == TermStart{{11}, {22}});
  CHECK(!history.TermAt({21}).has_value());
  CHECK(TermHistory::FromStarts(history.starts()).has_value());
}

}  // namespace
}  // namespace echofs
