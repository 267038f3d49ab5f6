#include "replication/lease_table.h"

#include "replication/limits.h"
#include "tests/catch.h"

namespace echofs {
namespace {

constexpr absl::Duration kTtl = absl::Seconds(10);

absl::Duration At(std::int64_t seconds) { return absl::Seconds(1000 + seconds); }

TEST_CASE("a lease that is not renewed is free after its TTL and not before (R2)") {
  LeaseTable table;
  REQUIRE(table.Acquire("a", "a:1", 0, {"a"}, kTtl, At(0))->term == Term{1});
  REQUIRE(table.Renew({1}, "a", kTtl, At(5)).ok());
  CHECK(table.NextExpiry() == At(15));
  const absl::Duration last = At(15) - absl::Nanoseconds(1);
  CHECK(absl::IsFailedPrecondition(table.Acquire("b", "b:1", 1, {"b"}, kTtl, last).status()));
  CHECK(table.Read(last).held);
  const std::uint64_t version = table.version();
  CHECK(!table.Read(At(15)).held);
  CHECK(table.version() != version);
  CHECK(absl::IsFailedPrecondition(table.Renew({1}, "a", kTtl, At(15)).status()));
  CHECK(table.Acquire("b", "b:1", 1, {"b"}, kTtl, At(15))->term == Term{3});
  CHECK(absl::IsFailedPrecondition(table.Renew({1}, "a", kTtl, At(15)).status()));
}

TEST_CASE("a restored holder has a full TTL, a restored record that is free stays free (R2)") {
  LeaseTable before;
  const LeaseRecord record = *before.Acquire("a", "a:1", 0, {"a"}, kTtl, At(0));
  LeaseTable after(100);
  after.Restore(before.tenure(), absl::Seconds(3));  // another boot
  CHECK(after.NextExpiry() == absl::Seconds(13));
  CHECK(after.Read(absl::Seconds(12)).held);
  CHECK(after.Read(absl::Seconds(12)).record == record);
  CHECK(!after.Read(absl::Seconds(13)).held);

  LeaseTable later(200);
  later.Restore(after.tenure(), absl::Seconds(1));
  CHECK(!later.Read(absl::Seconds(1)).held);
  CHECK(later.Acquire("b", "b:1", record.revision, {"b"}, kTtl, absl::Seconds(1))->term == Term{3});
}

TEST_CASE("a call that is refused changes nothing (R1)") {
  LeaseTable table;
  REQUIRE(table.Acquire("a", "a:1", 0, {"a", "b"}, kTtl, At(0)).ok());
  const LeaseTenure tenure = table.tenure();
  const std::uint64_t version = table.version();
  const std::string huge(kIdentitySizeMax + 1, 'x');
  const std::vector<absl::Status> refused = {
      table.Acquire("b", "b:1", 1, {"b"}, kTtl, At(1)).status(),
      table.Acquire("a", "elsewhere:1", 1, {"a"}, kTtl, At(1)).status(),
      table.Acquire("a", "a:1", 0, {"a"}, kTtl, At(1)).status(),
      table.Acquire("a", "a:1", 1, {huge}, kTtl, At(1)).status(),
      table.Acquire("", "a:1", 1, {"a"}, kTtl, At(1)).status(),
      table.Acquire("a", huge, 1, {"a"}, kTtl, At(1)).status(),
      table.Acquire("a", "a:1", 1, {"a"}, absl::ZeroDuration(), At(1)).status(),
      table.Acquire("a", "a:1", 1, std::vector<std::string>(kInSyncNodesMax + 1, "n"), kTtl, At(1))
          .status(),
      table.Renew({3}, "a", kTtl, At(1)).status(),
      table.Renew({1}, "b", kTtl, At(1)).status(),
      table.Renew({1}, "a", absl::InfiniteDuration(), At(1)).status(),
      table.SetInSync({1}, "b", 1, {"b"}, At(1)).status(),
      table.SetInSync({0}, "a", 1, {"a"}, At(1)).status(),
      table.SetInSync({1}, "a", 0, {"b"}, At(1)).status(),
      table.Transfer({1}, "b", "b", "b:1", kTtl, At(1)).status(),
      table.Transfer({1}, "a", "", "b:1", kTtl, At(1)).status(),
      table.Transfer({1}, "a", huge, "b:1", kTtl, At(1)).status(),
      table.Announce({huge, "", false, {}, {}}, kTtl, At(1)),
      table.Announce({"a", "", false, {}, {}}, -kTtl, At(1)),
  };
  for (std::size_t i = 0; i < refused.size(); ++i) {
    INFO(i << ": " << refused[i]);
    CHECK((absl::IsFailedPrecondition(refused[i]) || absl::IsInvalidArgument(refused[i])));
  }
  CHECK(table.Release({1}, "b", At(1)).ok());
  CHECK(table.Release({3}, "a", At(1)).ok());
  CHECK(table.tenure() == tenure);
  CHECK(table.version() == version);
  CHECK(table.NextExpiry() == At(10));
}

TEST_CASE("renewals change no version, everything else that can be read does") {
  LeaseTable table;
  std::uint64_t version = table.version();
  const auto changed = [&] { return std::exchange(version, table.version()) != table.version(); };
  NodeAnnouncement node{"b", "b:1", true, {{1}, {5}}, {}};
  REQUIRE(table.Acquire("a", "a:1", 0, {"a"}, kTtl, At(0)).ok());
  CHECK(changed());
  REQUIRE(table.Renew({1}, "a", kTtl, At(1)).ok());
  CHECK(!changed());
  REQUIRE(table.Announce(node, kTtl, At(1)).ok());
  CHECK(changed());
  REQUIRE(table.Announce(node, kTtl, At(2)).ok());
  CHECK(!changed());
  node.ended_term = {1};
  REQUIRE(table.Announce(node, kTtl, At(2)).ok());
  CHECK(changed());
  REQUIRE(table.SetInSync({1}, "a", 1, {"b", "a", "b"}, At(2)).ok());
  CHECK(table.Read(At(2)).record.in_sync == std::vector<std::string>{"a", "b"});
  CHECK(changed());
  // The same again, late.
  REQUIRE(table.SetInSync({1}, "a", 1, {"a", "b"}, At(2)).ok());
  CHECK(!changed());
  REQUIRE(table.Transfer({1}, "a", "b", "b:1", kTtl, At(3))->term == Term{3});
  CHECK(changed());
  REQUIRE(table.Release({3}, "b", At(4)).ok());
  CHECK(changed());
  CHECK(table.Read(At(11)).nodes == std::vector<NodeAnnouncement>{node});
  CHECK(table.Read(At(12)).nodes.empty());
  CHECK(changed());
  REQUIRE(table.Withdraw("b", At(12)).ok());
  CHECK(!changed());
}

TEST_CASE("there is a limit to the nodes that are announced") {
  LeaseTable table;
  for (std::size_t i = 0; i < kLeaseNodesMax; ++i) {
    REQUIRE(table.Announce({std::to_string(i), "", false, {}, {}}, kTtl, At(0)).ok());
  }
  CHECK(absl::IsInvalidArgument(table.Announce({"more", "", false, {}, {}}, kTtl, At(0))));
  CHECK(table.Announce({"7", "", true, {}, {}}, kTtl, At(5)).ok());
  CHECK(table.Announce({"more", "", false, {}, {}}, kTtl, At(10)).ok());
  CHECK(table.Read(At(10)).nodes.size() == 2);
}

}  // namespace
}  // namespace echofs
