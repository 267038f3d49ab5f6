// How old the data of a replica is.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>

#include "replication/ids.h"

namespace echofs {

// Compares what is applied with the heartbeats of the primary, each of which says "at this time of
// mine my log ended here". The primary's clock may differ from ours: the smallest difference ever
// seen between a heartbeat's time and its arrival is taken for that. Times are ms since 1970. One
// thread at a time.
class LagMeter {
 public:
  void Heartbeat(std::int64_t primary_time_ms, LogIndex last_index, std::int64_t now_ms);
  // Age of the state in which everything up to `applied` is applied; nothing before the first such
  // state. 0 while nothing newer is known (`received` is the end of our log) and heartbeats come.
  std::optional<std::uint64_t> LagMs(LogIndex applied, LogIndex received, std::int64_t now_ms);

 private:
  struct Point {
    LogIndex index;
    std::int64_t primary_time_ms;
  };
  std::deque<Point> ahead_;  // heartbeats whose entries are not all applied
  std::optional<std::int64_t> clock_difference_ms_;
  std::optional<std::int64_t> current_as_of_ms_;  // on the primary's clock
  std::int64_t last_heartbeat_ms_ = 0;            // on ours
};

}  // namespace echofs
