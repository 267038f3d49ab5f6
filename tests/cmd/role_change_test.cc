// Changes of the primary as commands ask for them, with real nodes on loopback and a lease service in
// this process.
#include "cmd/role_change.h"

#include "tests/cmd/test_util.h"
#include "tests/replication/test_cluster.h"

namespace echofs::cmd {
namespace {

using test::HasText;

constexpr absl::Duration kTtl = absl::Seconds(2);

// "a", the primary, and "b".
struct Pair {
  Pair() {
    for (TestNode* node : {&a, &b}) {
      node->KeepLog();
      REQUIRE(node->StartMember(&lease, kTtl).ok());
    }
    REQUIRE(a.node().role() == NodeRole::kPrimary);
    REQUIRE(Converges(a, b));
    REQUIRE(Eventually([&] { return lease.State().nodes.size() == 2; }));
  }

  TableLeaseService lease;
  TestNode a{"a"};
  TestNode b{"b"};
};

TEST_CASE("role change: a handoff is over when the new primary leads, and its term is told") {
  Pair nodes;
  for (TestNode* from : {&nodes.a, &nodes.b, &nodes.a}) {
    TestNode* to = from == &nodes.a ? &nodes.b : &nodes.a;
    const Term term = from->node().term();
    const absl::StatusOr<PrimaryInfo> primary = HandOff(from->node(), "");
    INFO(primary.status());
    REQUIRE(primary.ok());
    CHECK(primary->node == to->node().status().node_id);
    CHECK(primary->term > term);
    CHECK(to->node().role() == NodeRole::kPrimary);
    REQUIRE(to->TryCommit("app.db"));
    REQUIRE(Converges(*to, *from));
    REQUIRE(Eventually([&] { return nodes.lease.State().nodes.size() == 2; }));
  }
}

TEST_CASE("role change: a handoff that is refused says why, and who is the primary") {
  Pair nodes;
  const absl::Status not_primary = HandOff(nodes.b.node(), "").status();
  CHECK_THAT(std::string(not_primary.message()),
             HasText("this node is not the primary (the primary is a)"));
  const absl::Status unknown = HandOff(nodes.a.node(), "c").status();
  CHECK(unknown.message() == "c is not connected to this primary");
  CHECK(nodes.a.node().role() == NodeRole::kPrimary);
}

TEST_CASE("role change: a promotion is over when the node leads, and is nothing to a primary") {
  Pair nodes;
  const absl::StatusOr<PrimaryInfo> same = PromoteNode(nodes.a.node(), false);
  REQUIRE(same.ok());
  CHECK(same->node == "a");
  const absl::StatusOr<PrimaryInfo> primary = PromoteNode(nodes.b.node(), false);
  INFO(primary.status());
  REQUIRE(primary.ok());
  CHECK(primary->node == "b");
  CHECK(primary->term > same->term);
  CHECK(nodes.b.TryCommit("app.db"));
}

TEST_CASE("role change: with a static lease a promotion is possible on the primary alone") {
  TestNode a("a");
  TestNode b("b");
  REQUIRE(a.StartPrimary().ok());
  REQUIRE(b.StartReplica(a.address()).ok());
  CHECK(PromoteNode(a.node(), false)->node == "a");
  CHECK_THAT(std::string(PromoteNode(b.node(), true).status().message()),
             HasText("the lease is static"));
  CHECK_THAT(std::string(HandOff(a.node(), "b").status().message()),
             HasText("the lease is static"));
}

}  // namespace
}  // namespace echofs::cmd
