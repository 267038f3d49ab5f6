// What lease.h promises, of every backend that decides who is primary.
#include <thread>

#include "absl/time/clock.h"
#include "replication/boot_time.h"
#include "replication/limits.h"
#include "tests/catch.h"
#include "tests/replication/lease_backends.h"

namespace echofs {
namespace {

using test::Await;
using test::LeaseBackend;
using Nodes = std::vector<std::string>;

constexpr absl::Duration kLong = absl::Minutes(10);
constexpr absl::Duration kShort = absl::Seconds(2);  // etcd gives no less

std::string AnyBackend() { return GENERATE("server", "process", "etcd"); }

bool Refused(const absl::Status& status) { return absl::IsFailedPrecondition(status); }

std::uint64_t Revision(Lease& lease) { return lease.Read()->record.revision; }

// Renews a lease that was last renewed at `sent` for `lasts`. False, and no mistake, when that was over already: a busy
// machine may have stopped this test for longer.
bool RenewUnlessLate(Lease& lease, Term term, const std::string& node_id, absl::Duration lasts,
                     absl::Duration ttl, absl::Duration* sent) {
  const absl::Duration now = BootTime();
  const absl::Status status = lease.Renew(term, node_id, ttl).status();
  if (status.ok()) {
    *sent = now;
    return true;
  }
  INFO(status);
  CHECK(BootTime() >= *sent + lasts);
  return false;
}

// Waits until nobody holds the lease, and returns a moment not after that.
absl::Duration AwaitFree(Lease& lease) {
  absl::Duration free;
  Await("the end of the lease", [&] {
    const absl::StatusOr<LeaseState> state = lease.Read();
    free = BootTime();
    return state.ok() && !state->held;
  });
  return free;
}

TEST_CASE("lease: a term is given once and only grows, whatever happens between (R1)") {
  const auto backend = test::StartBackend(AnyBackend());
  const auto lease = backend->Connect();
  CHECK(lease->Read()->record == LeaseRecord{});
  CHECK(!lease->Read()->held);

  const LeaseRecord first = *lease->Acquire("a", "a:1", 0, {"b", "a"}, kShort);
  CHECK(first.term == Term{1});
  CHECK(first.primary_id == "a");
  CHECK(first.primary_address == "a:1");
  CHECK(first.in_sync == Nodes{"a", "b"});
  CHECK(lease->Read()->record == first);
  AwaitFree(*lease);
  CHECK(lease->Read()->record == first);

  const LeaseRecord second = *lease->Acquire("b", "b:1", first.revision, {"b"}, kLong);
  CHECK(second.term == Term{3});
  CHECK(lease->Transfer({3}, "b", "c", "c:1", kLong)->term == Term{5});
  backend->Restart();
  Await("an answer", [&] { return lease->Read().ok(); });
  CHECK(lease->Read()->record.term == Term{5});
  CHECK(lease->Read()->held);
  REQUIRE(lease->Release({5}, "c").ok());
  CHECK(lease->Read()->record.term == Term{5});
  CHECK(lease->Acquire("a", "a:1", Revision(*lease), {"a"}, kLong)->term == Term{7});
}

TEST_CASE("lease: bound to the first holder's cluster, it is not to be had for another one") {
  const auto backend = test::StartBackend(AnyBackend());
  const auto lease = backend->Connect();
  const auto joining = backend->Connect();  // without a cluster yet
  const auto foreign = backend->Connect();
  foreign->SetCluster("another");
  const LeaseRecord record = *lease->Acquire("a", "a:1", 0, {"a"}, kLong);
  REQUIRE(lease->Renew(record.term, "a", kLong).ok());
  CHECK(foreign->Read()->cluster_id.empty());
  lease->SetCluster("one");
  REQUIRE(lease->Renew(record.term, "a", kLong).ok());
  CHECK(lease->Read()->cluster_id == "one");

  const auto check = [&] {
    CHECK(absl::IsInvalidArgument(foreign->Read().status()));
    CHECK(absl::IsInvalidArgument(foreign->WaitForChange(0, kShort).status()));
    CHECK(absl::IsInvalidArgument(foreign->Announce({"x", "x:1", true, {}, {}}, kLong)));
    CHECK(absl::IsInvalidArgument(
        foreign->Acquire("x", "x:1", record.revision, {"x"}, kLong).status()));
    const std::string why(foreign->Read().status().message());
    CHECK(why.find("test is that of cluster one") != std::string::npos);
    CHECK(why.find("cluster another") != std::string::npos);
    CHECK(lease->Read()->record == record);
    CHECK(lease->Read()->nodes.empty());
    CHECK(joining->Read()->cluster_id == "one");
  };
  check();
  backend->Restart();
  Await("an answer", [&] { return lease->Read().ok(); });
  check();
  REQUIRE(lease->Release(record.term, "a").ok());
  check();
  // One that has just joined goes on with it.
  joining->SetCluster("one");
  const LeaseRecord next = *joining->Acquire("b", "b:1", record.revision, {"b"}, kLong);
  CHECK(joining->Renew(next.term, "b", kLong).ok());
  CHECK(joining->Read()->cluster_id == "one");
}

TEST_CASE("lease: who supposes what is not so changes nothing (R1)") {
  const auto backend = test::StartBackend(AnyBackend());
  const auto lease = backend->Connect();
  const LeaseRecord record = *lease->Acquire("a", "a:1", 0, {"a", "b"}, kLong);
  const LeaseState before = *lease->Read();
  CHECK(before.record == record);

  CHECK(Refused(lease->Acquire("b", "b:1", record.revision, {"b"}, kLong).status()));
  CHECK(Refused(lease->Acquire("a", "elsewhere:1", record.revision, {"a"}, kLong).status()));
  CHECK(Refused(lease->Acquire("a", "a:1", record.revision + 1, {"a"}, kLong).status()));
  CHECK(Refused(lease->Acquire("a", "a:1", 0, {"a"}, kLong).status()));
  CHECK(Refused(lease->Renew({3}, "a", kLong).status()));
  CHECK(Refused(lease->Renew({1}, "b", kLong).status()));
  CHECK(Refused(test::SetInSync(*lease, {1}, "b", {"b"}).status()));
  CHECK(Refused(test::SetInSync(*lease, {3}, "a", {"a"}).status()));
  CHECK(Refused(lease->Transfer({1}, "b", "b", "b:1", kLong).status()));
  CHECK(Refused(lease->Transfer({3}, "a", "b", "b:1", kLong).status()));
  CHECK(lease->Release({1}, "b").ok());
  CHECK(lease->Release({3}, "a").ok());
  const LeaseState after = *lease->Read();
  CHECK(after.record == before.record);
  CHECK(after.held);
  CHECK(after.version == before.version);

  REQUIRE(lease->Release({1}, "a").ok());
  CHECK(!lease->Read()->held);
  CHECK(Refused(lease->Renew({1}, "a", kLong).status()));
  CHECK(Refused(test::SetInSync(*lease, {1}, "a", {"a"}).status()));
  CHECK(Refused(lease->Transfer({1}, "a", "b", "b:1", kLong).status()));
  CHECK(Refused(lease->Acquire("b", "b:1", 0, {"b"}, kLong).status()));
  CHECK(lease->Read()->record == record);
}

TEST_CASE("lease: it is free after its TTL counted from the last renewal, and not before (R2)") {
  const auto backend = test::StartBackend(AnyBackend());
  const auto lease = backend->Connect();
  absl::Duration sent = BootTime();
  REQUIRE(lease->Acquire("a", "a:1", 0, {"a"}, kShort).ok());
  const absl::Duration renewing_until = sent + 2 * kShort;
  while (BootTime() < renewing_until && RenewUnlessLate(*lease, {1}, "a", kShort, kShort, &sent)) {
    absl::SleepFor(absl::Milliseconds(100));
  }
  const auto other = backend->Connect();
  Await("another primary",
        [&] { return other->Acquire("b", "b:1", Revision(*other), {"b"}, kLong).ok(); });
  CHECK(BootTime() >= sent + kShort);
  CHECK(other->Read()->record.term == Term{3});
  CHECK(Refused(lease->Renew({1}, "a", kShort).status()));
}

TEST_CASE("lease: a renewal with a longer TTL lasts as long (R2)") {
  const auto backend = test::StartBackend(AnyBackend());
  const auto lease = backend->Connect();
  absl::Duration sent = BootTime();
  REQUIRE(lease->Acquire("a", "a:1", 0, {"a"}, kShort).ok());
  if (!RenewUnlessLate(*lease, {1}, "a", kShort, 3 * kShort, &sent)) return;
  CHECK(AwaitFree(*lease) >= sent + 3 * kShort);
}

TEST_CASE("lease: a node takes back what a former process of its own holds") {
  const auto backend = test::StartBackend(AnyBackend());
  const auto former = backend->Connect();
  REQUIRE(former->Acquire("a", "a:1", 0, {"a"}, kLong).ok());
  const auto lease = backend->Connect();
  absl::Duration sent = BootTime();
  REQUIRE(lease->Acquire("a", "a:1", Revision(*lease), {"a"}, kShort)->term == Term{3});
  CHECK(Refused(former->Renew({1}, "a", kLong).status()));
  CHECK(former->Release({1}, "a").ok());
  RenewUnlessLate(*lease, {3}, "a", kShort, kShort, &sent);
  CHECK(AwaitFree(*lease) >= sent + kShort);
}

TEST_CASE("lease: the holder replaces the in-sync set, which stays through a transfer (D3)") {
  const auto backend = test::StartBackend(AnyBackend());
  const auto lease = backend->Connect();
  const LeaseRecord first = *lease->Acquire("a", "a:1", 0, {"a"}, kLong);
  const LeaseRecord changed = *test::SetInSync(*lease, {1}, "a", {"c", "a", "b", "b"});
  CHECK(changed.in_sync == Nodes{"a", "b", "c"});
  CHECK(changed.revision != first.revision);
  CHECK(lease->Read()->record == changed);
  CHECK(*test::SetInSync(*lease, {1}, "a", {"a", "b", "c"}) == changed);
  // One that arrives late undoes nothing newer.
  CHECK(Refused(lease->SetInSync({1}, "a", first.revision, {"a"}).status()));
  CHECK(lease->Read()->record == changed);
  CHECK(*lease->Renew({1}, "a", kLong) == changed);
  CHECK(lease->Transfer({1}, "a", "b", "b:1", kLong)->in_sync == Nodes{"a", "b", "c"});
  CHECK(test::SetInSync(*lease, {3}, "b", {})->in_sync.empty());
}

TEST_CASE("lease: after a transfer the target renews, and the old holder does not (R4)") {
  const auto backend = test::StartBackend(AnyBackend());
  const auto old_holder = backend->Connect();
  const auto target = backend->Connect();
  REQUIRE(old_holder->Acquire("a", "a:1", 0, {"a", "b"}, kLong).ok());
  absl::Duration sent = BootTime();
  const LeaseRecord record = *old_holder->Transfer({1}, "a", "b", "b:1", kShort);
  CHECK(record.term == Term{3});
  CHECK(record.primary_id == "b");
  CHECK(record.primary_address == "b:1");
  CHECK(old_holder->Release({1}, "a").ok());
  CHECK(Refused(old_holder->Renew({1}, "a", kLong).status()));
  CHECK(Refused(old_holder->Renew({3}, "a", kLong).status()));
  const absl::Duration end = sent + 2 * kShort;
  while (BootTime() < end && RenewUnlessLate(*target, {3}, "b", kShort, kShort, &sent)) {
    absl::SleepFor(absl::Milliseconds(100));
  }
  CHECK(AwaitFree(*old_holder) >= sent + kShort);
}

TEST_CASE("lease: whoever waits hears of every change") {
  const auto backend = test::StartBackend(AnyBackend());
  const auto lease = backend->Connect();
  const auto watcher = backend->Connect();
  LeaseState seen = *watcher->Read();
  // Does something while somebody waits, and returns what that one sees, until it is what was meant.
  const auto wait_for = [&](const std::string& what, const std::function<void()>& change,
                            const std::function<bool(const LeaseState&)>& meant) {
    std::thread changing(change);
    Await(what, [&] {
      const absl::StatusOr<LeaseState> next = watcher->WaitForChange(seen.version, kLong);
      if (!next.ok()) return false;
      CHECK(next->version != seen.version);
      seen = *next;
      return meant(seen);
    });
    changing.join();
  };
  wait_for(
      "the acquisition", [&] { REQUIRE(lease->Acquire("a", "a:1", 0, {"a"}, kLong).ok()); },
      [](const LeaseState& state) { return state.held && state.record.term == Term{1}; });
  wait_for(
      "the in-sync set",
      [&] {
        REQUIRE(test::SetInSync(*lease, {1}, "a", {"a", "b"}).ok());
      },
      [](const LeaseState& state) {
        return state.record.in_sync == Nodes{"a", "b"};
      });
  const NodeAnnouncement node{"b", "b:1", true, {{1}, {7}}, {1}};
  wait_for(
      "the announcement", [&] { REQUIRE(lease->Announce(node, kLong).ok()); },
      [&](const LeaseState& state) { return state.nodes == std::vector<NodeAnnouncement>{node}; });
  wait_for(
      "the withdrawal", [&] { REQUIRE(lease->Withdraw("b").ok()); },
      [](const LeaseState& state) { return state.nodes.empty(); });
  wait_for(
      "the transfer", [&] { REQUIRE(lease->Transfer({1}, "a", "b", "b:1", kShort).ok()); },
      [](const LeaseState& state) { return state.record.primary_id == "b"; });
  if (seen.held) {
    wait_for(
        "the end of the lease", [] {}, [](const LeaseState& state) { return !state.held; });
  }
  wait_for(
      "the return",
      [&] { REQUIRE(lease->Acquire("a", "a:1", Revision(*lease), {"a"}, kLong).ok()); },
      [](const LeaseState& state) { return state.held && state.record.term == Term{5}; });
  wait_for(
      "the release", [&] { REQUIRE(lease->Release({5}, "a").ok()); },
      [](const LeaseState& state) { return !state.held; });
}

TEST_CASE("lease: a wait ends with its timeout, without a change, and with Cancel") {
  const auto backend = test::StartBackend(AnyBackend());
  const auto lease = backend->Connect();
  REQUIRE(lease->Acquire("a", "a:1", 0, {"a"}, kLong).ok());
  const LeaseState state = *lease->Read();
  REQUIRE(lease->Renew({1}, "a", kLong).ok());
  const absl::Duration begin = BootTime();
  const LeaseState same = *lease->WaitForChange(state.version, absl::Milliseconds(300));
  CHECK(BootTime() >= begin + absl::Milliseconds(300));
  CHECK(same.version == state.version);
  CHECK(same.record == state.record);

  absl::StatusOr<LeaseState> seen;
  std::thread waiting([&] { seen = lease->WaitForChange(state.version, kLong); });
  // Others go on meanwhile.
  CHECK(lease->Renew({1}, "a", kLong).ok());
  lease->Cancel();
  waiting.join();
  CHECK(absl::IsCancelled(seen.status()));
  CHECK(absl::IsCancelled(lease->WaitForChange(state.version, kLong).status()));
  CHECK(absl::IsCancelled(lease->WaitForChange(state.version + 1, kLong).status()));
  CHECK(lease->Read().ok());
}

TEST_CASE("lease: announcements live for their TTL, each for its own") {
  const auto backend = test::StartBackend(AnyBackend());
  const auto lease = backend->Connect();
  NodeAnnouncement a{"a", "a:1", true, {{1}, {7}}, {1}};
  const NodeAnnouncement b{"b", "", false, {{1}, {5}}, {}};
  REQUIRE(lease->Announce(b, kLong).ok());
  absl::Duration sent;
  const absl::Duration end = BootTime() + 2 * kShort;
  do {
    ++a.position.index.value;
    sent = BootTime();
    REQUIRE(lease->Announce(a, kShort).ok());
    const std::vector<NodeAnnouncement> nodes = lease->Read()->nodes;
    if (BootTime() < sent + kShort) REQUIRE(nodes == std::vector<NodeAnnouncement>{a, b});
    absl::SleepFor(absl::Milliseconds(100));
  } while (BootTime() < end);
  Await("the end of an announcement", [&] { return lease->Read()->nodes.size() == 1; });
  CHECK(BootTime() >= sent + kShort);
  CHECK(lease->Read()->nodes == std::vector<NodeAnnouncement>{b});

  // Another process of the same node.
  const auto other = backend->Connect();
  a.candidate = false;
  REQUIRE(lease->Announce(a, kLong).ok());
  REQUIRE(other->Announce(a, kLong).ok());
  CHECK(other->Withdraw("a").ok());
  CHECK(other->Withdraw("a").ok());
  CHECK(lease->Read()->nodes == std::vector<NodeAnnouncement>{b});
  REQUIRE(lease->Announce(a, kLong).ok());
  CHECK(lease->Read()->nodes == std::vector<NodeAnnouncement>{a, b});
}

TEST_CASE("lease: a log that knows of higher terms than the record gets one above them") {
  const auto backend = test::StartBackend(AnyBackend());
  const auto lease = backend->Connect();
  REQUIRE(lease->Announce({"a", "a:1", true, {{41}, {7}}, {}}, kLong).ok());
  CHECK(lease->Acquire("a", "a:1", 0, {"a"}, kLong)->term == Term{43});
  CHECK(lease->Transfer({43}, "a", "b", "b:1", kLong)->term == Term{45});
  CHECK(absl::IsInvalidArgument(
      lease->Announce({"c", "c:1", true, {{kTermMax + 1}, {7}}, {}}, kLong)));
}

TEST_CASE("lease: clusters with different keys have nothing in common") {
  const auto backend = test::StartBackend(AnyBackend());
  const auto one = backend->Connect("one");
  const auto other = backend->Connect("one-more");
  REQUIRE(one->Acquire("a", "a:1", 0, {"a"}, kLong).ok());
  REQUIRE(one->Announce({"a", "a:1", true, {}, {}}, kLong).ok());
  CHECK(other->Read()->record == LeaseRecord{});
  CHECK(other->Read()->nodes.empty());
  CHECK(other->Acquire("b", "b:1", 0, {"b"}, kLong)->term == Term{1});
  CHECK(one->Read()->record.primary_id == "a");
}

TEST_CASE("lease: what is too large, empty or endless is refused") {
  const auto backend = test::StartBackend(AnyBackend());
  const auto lease = backend->Connect();
  REQUIRE(lease->Acquire("a", "a:1", 0, {"a"}, kLong).ok());
  const LeaseState before = *lease->Read();
  const std::string huge(kIdentitySizeMax + 1, 'x');
  const Nodes many(kInSyncNodesMax + 1, "n");
  const std::uint64_t revision = before.record.revision;
  const std::vector<absl::Status> refused = {
      lease->Acquire("", "a:1", revision, {}, kLong).status(),
      lease->Acquire(huge, "a:1", revision, {}, kLong).status(),
      lease->Acquire("a", huge, revision, {}, kLong).status(),
      lease->Acquire("a", "a:1", revision, {huge}, kLong).status(),
      lease->Acquire("a", "a:1", revision, many, kLong).status(),
      lease->Acquire("a", "a:1", revision, {}, absl::ZeroDuration()).status(),
      lease->Acquire("a", "a:1", revision, {}, 2 * kLeaseTtlMax).status(),
      lease->Renew({1}, "a", absl::ZeroDuration()).status(),
      test::SetInSync(*lease, {1}, "a", {""}).status(),
      test::SetInSync(*lease, {1}, "a", many).status(),
      lease->Transfer({1}, "a", "", "b:1", kLong).status(),
      lease->Transfer({1}, "a", huge, "b:1", kLong).status(),
      lease->Transfer({1}, "a", "b", huge, kLong).status(),
      lease->Announce({huge, "", false, {}, {}}, kLong),
      lease->Announce({"b", huge, false, {}, {}}, kLong),
      lease->Announce({"b", "", false, {}, {}}, -kLong),
  };
  for (std::size_t i = 0; i < refused.size(); ++i) {
    INFO(i << ": " << refused[i]);
    CHECK(absl::IsInvalidArgument(refused[i]));
  }
  const LeaseState after = *lease->Read();
  CHECK(after.record == before.record);
  CHECK(after.held);
  CHECK(after.version == before.version);
}

}  // namespace
}  // namespace echofs
