#include "replication/static_lease.h"

#include <thread>

#include "tests/catch.h"

namespace echofs {
namespace {

constexpr absl::Duration kTtl = absl::Seconds(10);

TEST_CASE("the static lease makes the node it names primary, with a term above all before (R1)") {
  const auto [primary, advertise] =
      GENERATE(std::pair("", ""), std::pair("", "host-a:1"), std::pair("host-a:1", "host-a:1"));
  StaticLease lease(primary, "a", advertise, {7});
  const LeaseState before = *lease.Read();
  CHECK(!before.held);
  CHECK(before.record.term == Term{7});
  const LeaseRecord record =
      *lease.Acquire("a", advertise, before.record.revision, {"a", "b"}, kTtl);
  CHECK(record.term == Term{9});
  CHECK(record.primary_id == "a");
  CHECK(record.primary_address == advertise);
  const LeaseState held = *lease.Read();
  CHECK(held.held);
  CHECK(held.record == record);
  CHECK(held.version != before.version);

  CHECK(lease.Renew({9}, "a", kTtl).ok());
  CHECK(absl::IsFailedPrecondition(lease.Renew({7}, "a", kTtl).status()));
  CHECK(lease.SetInSync({9}, "a", record.revision, {"a"})->in_sync ==
        std::vector<std::string>{"a"});
  CHECK(lease.Release({9}, "a").ok());
  CHECK(!lease.Read()->held);
  CHECK(lease.Acquire("a", advertise, lease.Read()->record.revision, {"a"}, kTtl)->term ==
        Term{11});
}

TEST_CASE("where the static lease names another node, it is held by that one for ever") {
  const std::string advertise = GENERATE("", "host-a:1");
  StaticLease lease("host-b:1", "a", advertise, {7});
  const LeaseState state = *lease.Read();
  CHECK(state.held);
  CHECK(state.record.term == Term{0});
  CHECK(state.record.primary_address == "host-b:1");
  CHECK(state.record.primary_id.empty());
  CHECK(absl::IsFailedPrecondition(
      lease.Acquire("a", advertise, state.record.revision, {"a"}, kTtl).status()));
  CHECK(absl::IsFailedPrecondition(lease.Renew({7}, "a", kTtl).status()));
  CHECK(absl::IsFailedPrecondition(lease.SetInSync({7}, "a", 1, {"a"}).status()));
  CHECK(lease.Release({7}, "a").ok());
  CHECK(lease.Read()->held);
}

TEST_CASE("the static lease knows no transfer, says what to do, and ignores announcements") {
  StaticLease lease("", "a", "", {0});
  REQUIRE(lease.Acquire("a", "", 0, {"a"}, kTtl).ok());
  const absl::Status refused = lease.Transfer({1}, "a", "b", "host-b:1", kTtl).status();
  CHECK(absl::IsUnimplemented(refused));
  CHECK(std::string(refused.message()).find("lease.primary") != std::string::npos);
  CHECK(lease.Announce({"a", "", true, {}, {}}, kTtl).ok());
  CHECK(lease.Withdraw("a").ok());
  CHECK(lease.Read()->nodes.empty());
}

TEST_CASE("a wait for a change of the static lease ends with the change, and with Cancel") {
  StaticLease lease("", "a", "", {0});
  const std::uint64_t version = lease.Read()->version;
  absl::StatusOr<LeaseState> seen;
  std::thread waiting([&] { seen = lease.WaitForChange(version, absl::Minutes(5)); });
  REQUIRE(lease.Acquire("a", "", 0, {"a"}, kTtl).ok());
  waiting.join();
  REQUIRE(seen.ok());
  CHECK(seen->record.term == Term{1});
  CHECK(lease.WaitForChange(seen->version, absl::Milliseconds(1))->version == seen->version);

  std::thread cancelled([&] { seen = lease.WaitForChange(seen->version, absl::Minutes(5)); });
  lease.Cancel();
  cancelled.join();
  CHECK(absl::IsCancelled(seen.status()));
  CHECK(absl::IsCancelled(lease.WaitForChange(0, absl::Minutes(5)).status()));
}

}  // namespace
}  // namespace echofs
