// The one source of chance of a simulated run: the same seed gives the same numbers on every machine.
#pragma once

#include <cstdint>
#include <vector>

namespace echofs::sim {

// SplitMix64. A value; one for a whole run.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15ull + 1) {}

  std::uint64_t Next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  // 0 to n - 1; n > 0.
  std::uint64_t Below(std::uint64_t n) { return Next() % n; }
  // low to high, both included.
  std::int64_t Between(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(Below(static_cast<std::uint64_t>(high - low) + 1));
  }
  // True in `per_mille` of 1000 cases.
  bool Chance(int per_mille) { return Below(1000) < static_cast<std::uint64_t>(per_mille); }
  template <class T>
  const T& Pick(const std::vector<T>& items) {
    return items[Below(items.size())];
  }

 private:
  std::uint64_t state_;
};

}  // namespace echofs::sim
