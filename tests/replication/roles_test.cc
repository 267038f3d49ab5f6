// Roles of real nodes on loopback with a lease service in the same process: who leads, and that one history comes out.
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/catch.h"
#include "tests/replication/test_cluster.h"

namespace echofs {
namespace {

constexpr absl::Duration kTtl = absl::Seconds(2);

// Nodes "a", "b", ... with one lease.
class Members {
 public:
  explicit Members(int count) {
    for (int i = 0; i < count; ++i) {
      nodes_.push_back(std::make_unique<TestNode>(std::string(1, static_cast<char>('a' + i))));
      nodes_.back()->KeepLog();
    }
  }

  TestNode& operator[](std::size_t i) { return *nodes_[i]; }
  std::size_t size() const { return nodes_.size(); }

  // "a" becomes the primary, since the others are not there yet.
  void StartAll() {
    for (const auto& node : nodes_) REQUIRE(node->StartMember(&lease, kTtl).ok());
    REQUIRE(Leader() == &(*this)[0]);
  }

  // Waits until one of the running nodes leads.
  TestNode* Leader() {
    TestNode* leader = nullptr;
    REQUIRE(Eventually([&] {
      for (const auto& node : nodes_) {
        if (node->running() && node->node().role() == NodeRole::kPrimary) leader = node.get();
      }
      return leader != nullptr;
    }));
    return leader;
  }

  void CheckConverged() {
    TestNode* leader = Leader();
    for (const auto& node : nodes_) {
      if (node->running() && node.get() != leader) REQUIRE(Converges(*leader, *node));
    }
  }

  // Before the nodes, which use it.
  TableLeaseService lease;

 private:
  std::vector<std::unique_ptr<TestNode>> nodes_;
};

bool Announced(TableLeaseService& lease, const std::string& node) {
  return Eventually([&] {
    for (const NodeAnnouncement& announcement : lease.State().nodes) {
      if (announcement.node_id == node) return true;
    }
    return false;
  });
}

bool Connected(TestNode& primary, const std::string& node) {
  return Eventually([&] {
    for (const FollowerStatus& follower : primary.node().status().replicas) {
      if (follower.node == node && follower.connected &&
          follower.acked_index == primary.log().last_index()) {
        return true;
      }
    }
    return false;
  });
}

}  // namespace

TEST_CASE("R1 R6: the first node leads, the others follow it", "[roles]") {
  Members members(3);
  members.StartAll();
  for (int i = 0; i < 10; ++i) REQUIRE(members[0].TryCommit("app.db"));
  members.CheckConverged();
  CHECK(members[1].node().status().primary_id == "a");
  CHECK(Eventually([&] { return members[1].node().status().nodes.size() == 3; }));
  CHECK_FALSE(members[1].TryCommit("app.db"));
}

TEST_CASE("R4: a handoff moves the lease and loses nothing", "[roles]") {
  Members members(3);
  members.StartAll();
  for (int round = 0; round < 5; ++round) {
    TestNode* from = members.Leader();
    REQUIRE(from->TryCommit("app.db"));
    TestNode& to = from == &members[1] ? members[2] : members[1];
    const std::string id = from == &members[1] ? "c" : "b";
    REQUIRE(Connected(*from, id));
    REQUIRE(Announced(members.lease, id));
    const Term term = from->node().term();
    const absl::Status status = from->node().Handoff(id);
    INFO(status.ToString());
    REQUIRE(status.ok());
    REQUIRE(Eventually([&] { return to.node().role() == NodeRole::kPrimary; }));
    CHECK(to.node().term() > term);
    REQUIRE(to.TryCommit("app.db"));
    members.CheckConverged();
  }
}

TEST_CASE("R4: a handoff to nobody is refused with a reason", "[roles]") {
  Members members(2);
  REQUIRE(members[0].StartMember(&members.lease, kTtl).ok());
  CHECK(absl::IsFailedPrecondition(members[0].node().Handoff("")));
  CHECK(absl::IsFailedPrecondition(members[0].node().Handoff("nobody")));
  CHECK(absl::IsFailedPrecondition(members[0].node().Handoff("a")));
  REQUIRE(members[1].StartMember(&members.lease, kTtl, /*candidate=*/false).ok());
  REQUIRE(Connected(members[0], "b"));
  REQUIRE(Announced(members.lease, "b"));
  CHECK(absl::IsFailedPrecondition(members[0].node().Handoff("b")));
  REQUIRE(members[0].TryCommit("app.db"));
  members.CheckConverged();
}

TEST_CASE("R3: after a crash a replica takes over, and the old primary follows it", "[roles]") {
  Members members(3);
  members.StartAll();
  for (int i = 0; i < 10; ++i) REQUIRE(members[0].TryCommit("app.db"));
  REQUIRE(Connected(members[0], "b"));
  REQUIRE(Connected(members[0], "c"));
  members[0].Kill();
  TestNode* leader = members.Leader();
  REQUIRE(leader->TryCommit("app.db"));
  REQUIRE(members[0].StartMember(&members.lease, kTtl).ok());
  REQUIRE(Eventually(
      [&] { return members[0].node().status().primary_id == leader->node().status().node_id; }));
  members.CheckConverged();
}

TEST_CASE("R2: a primary that cannot reach the lease stops committing before another leads",
          "[roles]") {
  Members members(3);
  members.StartAll();
  REQUIRE(members[0].TryCommit("app.db"));
  REQUIRE(Connected(members[0], "b"));
  REQUIRE(Connected(members[0], "c"));
  members.lease.SetReachable("a", false);
  TestNode* other = nullptr;
  int commits = 0;
  REQUIRE(Eventually([&] {
    const bool committed = members[0].TryCommit("app.db");
    commits += committed;
    for (TestNode* node : {&members[1], &members[2]}) {
      if (node->node().role() != NodeRole::kPrimary) continue;
      CHECK_FALSE(committed);
      other = node;
    }
    return other != nullptr;
  }));
  CHECK(commits > 0);
  CHECK_FALSE(members[0].TryCommit("app.db"));
  REQUIRE(other->TryCommit("app.db"));
  members.lease.SetReachable("a", true);
  members.CheckConverged();
}

TEST_CASE("R4: an orderly end hands off by itself", "[roles]") {
  Members members(2);
  members.StartAll();
  REQUIRE(members[0].TryCommit("app.db"));
  REQUIRE(Connected(members[0], "b"));
  REQUIRE(Announced(members.lease, "b"));
  members[0].Stop();
  // Not by the end of the lease: the record says that it was given.
  CHECK(members.lease.State().record.primary_id == "b");
  REQUIRE(members.Leader() == &members[1]);
  REQUIRE(members[1].TryCommit("app.db"));
  REQUIRE(members[0].StartMember(&members.lease, kTtl).ok());
  members.CheckConverged();
}

TEST_CASE("R4: an orderly end of the only node gives the lease back", "[roles]") {
  Members members(1);
  members.StartAll();
  REQUIRE(members[0].TryCommit("app.db"));
  members[0].Stop();
  CHECK_FALSE(members.lease.State().held);
  members.StartAll();
  REQUIRE(members[0].TryCommit("app.db"));
}

TEST_CASE("R3: a node that is started first waits for the one that led last and has more",
          "[roles]") {
  Members members(2);
  members.StartAll();
  REQUIRE(members[0].TryCommit("app.db"));
  REQUIRE(Connected(members[0], "b"));
  members[1].Stop();
  for (int i = 0; i < 5; ++i) REQUIRE(members[0].TryCommit("app.db"));
  members[0].Stop();
  absl::Status started;
  std::thread first([&] { started = members[1].StartMember(&members.lease, absl::Seconds(20)); });
  const bool announced = Announced(members.lease, "b");
  const absl::Status second = members[0].StartMember(&members.lease, absl::Seconds(20));
  first.join();
  REQUIRE(announced);
  REQUIRE(started.ok());
  REQUIRE(second.ok());
  REQUIRE(members.Leader() == &members[0]);
  REQUIRE(members[0].TryCommit("app.db"));
  members.CheckConverged();
  CHECK(members[1].node().status().orphans == 0);
  CHECK(members[0].node().status().orphans == 0);
}

TEST_CASE("R4: promote asks the primary for a handoff, or takes a free lease", "[roles]") {
  Members members(2);
  members.StartAll();
  REQUIRE(members[0].TryCommit("app.db"));
  REQUIRE(Connected(members[0], "b"));
  REQUIRE(Announced(members.lease, "b"));
  const absl::Status promoted = members[1].node().Promote(false);
  INFO(promoted.ToString());
  REQUIRE(promoted.ok());
  REQUIRE(members[1].TryCommit("app.db"));
  CHECK(members[1].node().Promote(false).ok());  // it leads already
  members.CheckConverged();
}

TEST_CASE("R3: a node that is no candidate never leads", "[roles]") {
  Members members(2);
  REQUIRE(members[0].StartMember(&members.lease, kTtl).ok());
  REQUIRE(members[1].StartMember(&members.lease, kTtl, /*candidate=*/false).ok());
  REQUIRE(members[0].TryCommit("app.db"));
  REQUIRE(Connected(members[0], "b"));
  members[0].Kill();
  REQUIRE(Eventually([&] { return !members.lease.State().held; }));
  REQUIRE(Eventually([&] { return members[1].node().status().primary_id.empty(); }));
  CHECK(absl::IsFailedPrecondition(members[1].node().Promote(false)));
  CHECK(members[1].node().role() == NodeRole::kReplica);
  REQUIRE(members[0].StartMember(&members.lease, kTtl).ok());
  members.CheckConverged();
}

}  // namespace echofs
