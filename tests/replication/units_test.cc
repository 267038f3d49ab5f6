// The small parts: lag, window.
#include "absl/time/clock.h"
#include "replication/follow_session.h"
#include "replication/lag_meter.h"
#include "replication/limits.h"
#include "tests/catch.h"

namespace echofs {
namespace {

TEST_CASE("lag is the age of what is applied, whatever the primary's clock says") {
  LagMeter lag;
  CHECK(!lag.LagMs({}, {}, 1000));
  // The primary's clock is 500 s ahead.
  lag.Heartbeat(501'000, {10}, 1000);
  CHECK(!lag.LagMs({9}, {10}, 1000));
  CHECK(lag.LagMs({10}, {10}, 1900) == 0u);
  // Entries are here but not applied.
  CHECK(lag.LagMs({10}, {11}, 1900) == 900u);
  // The primary has entries that are not here.
  lag.Heartbeat(502'000, {12}, 2000);
  CHECK(lag.LagMs({11}, {11}, 2500) == 1500u);
  CHECK(lag.LagMs({12}, {12}, 2600) == 0u);
  // A heartbeat that comes late does not look like a new clock.
  lag.Heartbeat(503'000, {20}, 5000);
  CHECK(lag.LagMs({20}, {21}, 5000) == 2000u);
  // No heartbeats any more: the age grows.
  CHECK(lag.LagMs({21}, {21}, 9000) == 6000u);
}

TEST_CASE("a replica that is behind for very long costs no more memory, and its lag stays true") {
  LagMeter lag;
  lag.Heartbeat(0, {1}, 0);
  CHECK(lag.LagMs({1}, {1}, 0) == 0u);
  std::int64_t now = 0;
  for (std::uint64_t i = 2; i < 3 * kHeartbeatsRememberedMax; ++i) {
    now += 1000;
    lag.Heartbeat(now, {i}, now);
  }
  CHECK(lag.LagMs({1}, {9999}, now) == static_cast<std::uint64_t>(now));
  CHECK(lag.LagMs({3 * kHeartbeatsRememberedMax - 1}, {9999}, now) == 0u);
}

TEST_CASE(
    "the send window holds back what is not acknowledged, but lets one large record through") {
  SendWindow window;
  window.Start({10});
  const absl::Time now = absl::InfinitePast();
  CHECK(window.WaitForRoom(kUnacknowledgedSizeMax * 2, now));
  window.Sent({11}, kUnacknowledgedSizeMax - 100);
  CHECK(window.WaitForRoom(100, now));
  CHECK(!window.WaitForRoom(101, now));
  window.Sent({12}, 100);
  CHECK(!window.WaitForRoom(1, now));
  CHECK(window.Acknowledged({10}).ok());
  CHECK(!window.WaitForRoom(1, now));
  CHECK(window.Acknowledged({11}).ok());
  CHECK(window.in_flight_bytes() == 100);
  CHECK(window.WaitForRoom(1, now));
  CHECK(absl::IsInvalidArgument(window.Acknowledged({13})));
  CHECK(window.Acknowledged({12}).ok());
  CHECK(window.in_flight_bytes() == 0);
  window.Close();
  CHECK(!window.WaitForRoom(1, absl::InfiniteFuture()));
}

}  // namespace
}  // namespace echofs
