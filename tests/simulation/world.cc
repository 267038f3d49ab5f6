#include "tests/simulation/world.h"

#include "tests/simulation/judge.h"
#include "tests/simulation/lease_service.h"
#include "tests/simulation/sim_node.h"

namespace echofs::sim {

void Counts::Add(const Counts& other) {
  steps += other.steps;
  commits += other.commits;
  acknowledged += other.acknowledged;
  refused += other.refused;
  tenures += other.tenures;
  handoffs += other.handoffs;
  crashes += other.crashes;
  power_losses += other.power_losses;
  pauses += other.pauses;
  cuts += other.cuts;
  lease_restarts += other.lease_restarts;
  disks_full += other.disks_full;
  rewinds += other.rewinds;
  bases += other.bases;
  copies += other.copies;
  orphans += other.orphans;
  recovered += other.recovered;
}

Moment SimClock::MomentOf(std::int64_t time) const {
  const std::int64_t elapsed = time - start_;
  if (elapsed <= 0) return 0;
  Moment moment =
      static_cast<Moment>(static_cast<__int128>(elapsed) * 1'000'000 / (1'000'000 + ppm_));
  while (At(moment) < time) ++moment;
  return moment;
}

World::World(std::uint64_t seed)
    : random(seed), network(&scheduler, &random), options(ChooseOptions(random)) {}

World::~World() = default;

void World::Fail(std::string what) {
  Trace("FAILED: {}", what);
  if (failure.empty()) {
    failure = fmt::format("at {:.6f} s: {}", static_cast<double>(scheduler.now()) / 1e9, what);
  }
}

void World::Print(const std::string& line) const {
  fmt::print("{:12.6f} {}\n", static_cast<double>(scheduler.now()) / 1e9, line);
}

}  // namespace echofs::sim
