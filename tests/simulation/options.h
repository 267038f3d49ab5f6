// What a seed decides before the run begins.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "tests/simulation/network.h"
#include "tests/simulation/random.h"

namespace echofs::sim {

struct ClusterOptions {
  int nodes = 3;
  int min_sync_replicas = 0;
  absl::Duration ttl = absl::Seconds(2);
  absl::Duration ack_timeout = absl::Seconds(2);
  std::vector<bool> candidates;           // by node
  std::vector<std::int64_t> clock_ppm;    // by node, and the lease service: how much too fast
  std::vector<std::int64_t> clock_start;  // nanoseconds, by node, and the lease service
  std::uint64_t segment_size = 64 << 10;  // bytes
  std::uint64_t retention_size = 1 << 20;
  Moment call_timeout = kSecond;         // of a call to the lease service
  Moment commit_interval_max = kSecond;  // between two transactions of a client
  int waits_per_mille = 500;             // of commits that wait for the replicas when they can (D1)
  NetworkQuality network;                // while there are faults
  int wrong_address_per_mille = 0;       // connections that end at another node than was meant
  Moment fault_interval_max = kSecond;
  std::vector<int> fault_weights;  // by kind of fault, see faults.h
  bool forced_promotions = false;  // a person may give up acknowledged commits
  Moment faults_end = 20 * kSecond;
  bool sqlite = false;  // the databases are SQLite's: see sqlite_client.h
};

ClusterOptions ChooseOptions(Random& random);
// One line for people.
std::string Describe(const ClusterOptions& options);

}  // namespace echofs::sim
