// The lease in an etcd of three members, of which one dies.
#include <thread>

#include "replication/boot_time.h"
#include "replication/etcd_lease.h"
#include "tests/catch.h"
#include "tests/replication/lease_backends.h"

namespace echofs {
namespace {

using test::Await;
using test::EtcdCluster;

TEST_CASE("etcd lease: renewals and watches go on while each member dies in turn, its leader too") {
  constexpr absl::Duration kTtl = absl::Minutes(1);
  EtcdCluster etcd(3);
  const auto lease = etcd.Connect();
  const auto other = etcd.Connect();
  REQUIRE(lease->Acquire("a", "a:1", 0, {"a"}, kTtl)->term == Term{1});
  LeaseState seen = *other->Read();
  for (int member = 0; member < 3; ++member) {
    etcd.KillMember(member);
    Await("a renewal", [&] { return lease->Renew({1}, "a", kTtl).ok(); });
    Await("a refusal", [&] {
      return absl::IsFailedPrecondition(
          other->Acquire("b", "b:1", seen.record.revision, {"b"}, kTtl).status());
    });
    const std::vector<std::string> in_sync = {"a", "n" + std::to_string(member)};
    std::thread changing([&] {
      Await("a change", [&] { return test::SetInSync(*lease, {1}, "a", in_sync).ok(); });
    });
    Await("the change", [&] {
      absl::StatusOr<LeaseState> next = other->WaitForChange(seen.version, kTtl);
      if (next.ok()) seen = *std::move(next);
      return seen.record.in_sync == in_sync;
    });
    changing.join();
    CHECK(seen.held);
    CHECK(seen.record.term == Term{1});
    etcd.StartMember(member);
    const auto restarted = etcd.ConnectTo(member);
    Await("the member", [&] {
      const absl::StatusOr<LeaseState> state = restarted->Read();
      return state.ok() && state->record.in_sync == in_sync;
    });
  }
  Await("a transfer", [&] {
    // Its outcome may be unknown, so the state tells.
    (void)lease->Transfer({1}, "a", "b", "b:1", kTtl).ok();
    const absl::StatusOr<LeaseState> state = lease->Read();
    return state.ok() && state->record.term == Term{3};
  });
  Await("a renewal of the target", [&] { return other->Renew({3}, "b", kTtl).ok(); });
}

TEST_CASE("etcd lease: without a majority nothing is answered, and all is there afterwards") {
  constexpr absl::Duration kTtl = absl::Minutes(1);
  EtcdCluster etcd(3);
  const auto lease = etcd.Connect();
  const LeaseRecord record = *lease->Acquire("a", "a:1", 0, {"a"}, kTtl);
  etcd.KillMember(0);
  etcd.KillMember(1);
  CHECK(absl::IsUnavailable(lease->Read().status()));
  CHECK(absl::IsUnavailable(lease->Renew({1}, "a", kTtl).status()));
  CHECK(absl::IsUnavailable(lease->WaitForChange(0, kTtl).status()));
  etcd.StartMember(0);
  Await("a renewal", [&] { return lease->Renew({1}, "a", kTtl).ok(); });
  CHECK(lease->Read()->record == record);
}

}  // namespace
}  // namespace echofs
