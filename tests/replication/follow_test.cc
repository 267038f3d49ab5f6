// A replica that follows its primary, through restarts of either.
#include <map>
#include <set>
#include <string>

#include "absl/time/clock.h"
#include "echofs/v1/replication.pb.h"
#include "replication/grpc_client.h"
#include "replication/limits.h"
#include "replication/replica.h"
#include "tests/catch.h"
#include "tests/replication/test_cluster.h"

namespace echofs {
namespace {

// Reads a primary's stream by hand, as a replica with this position.
std::unique_ptr<FollowCall> FollowByHand(const std::string& address, LogIndex last_index,
                                         Term last_term) {
  const std::unique_ptr<PrimaryChannel> channel = MakeGrpcConnector()->Connect(address);
  std::unique_ptr<FollowCall> call = channel->Follow();
  v1::FollowRequest request;
  request.mutable_hello()->set_protocol_version(kProtocolVersion);
  request.mutable_hello()->set_node("by-hand");
  request.mutable_hello()->set_last_index(last_index.value);
  request.mutable_hello()->set_last_term(last_term.value);
  REQUIRE(call->Write(request));
  return call;
}

// The size of the next chunk; fails after a minute of nothing but heartbeats.
std::size_t NextChunkSize(FollowCall& call) {
  v1::FollowResponse response;
  for (int heartbeats = 0; heartbeats < 60; ++heartbeats) {
    REQUIRE(call.Read(&response));
    REQUIRE(!response.has_base());
    if (response.has_chunk()) return response.chunk().data().size();
  }
  FAIL("no chunk for a minute");
  return 0;
}

TEST_CASE("a replica follows from the start, byte for byte (L3)") {
  TestNode a("a");
  TestNode b("b");
  REQUIRE(a.StartPrimary().ok());
  a.Commit("x.db", 5);
  REQUIRE(b.StartReplica(a.address()).ok());
  a.Commit("x.db", 5);
  a.Commit("sub/y.db", 5);
  REQUIRE(Converges(a, b));
  // From the start means: nothing had to be copied.
  CHECK(b.store().installs("x.db") == 0);
  CHECK(b.node().role() == NodeRole::kReplica);
  CHECK(b.node().status().cluster_id == a.node().status().cluster_id);
  CHECK(b.node().status().primary_id == "a");
  CHECK(b.node().status().term == a.node().term());

  const std::unique_ptr<LogReader> of_a = a.log().Read({1});
  const std::unique_ptr<LogReader> of_b = b.log().Read({1});
  for (LogIndex index{1}; index <= a.log().last_index(); index = index.Next()) {
    const auto entry = of_a->Next();
    REQUIRE(of_b->Next().ok());
    std::vector<std::uint8_t> bytes_a((*entry)->RecordSize());
    std::vector<std::uint8_t> bytes_b(bytes_a.size());
    REQUIRE(ReadExactly(*of_a->Record(), bytes_a).ok());
    REQUIRE(ReadExactly(*of_b->Record(), bytes_b).ok());
    REQUIRE(bytes_a == bytes_b);
  }
}

TEST_CASE("the primary knows how far its replicas are, also those that have gone") {
  TestNode a("a");
  TestNode b("b");
  REQUIRE(a.StartPrimary().ok());
  REQUIRE(b.StartReplica(a.address()).ok());
  const LogIndex last = a.Commit("x.db", 20);
  REQUIRE(Converges(a, b));
  const auto follower = [&] {
    const std::vector<FollowerStatus> replicas = a.node().status().replicas;
    return replicas.size() == 1 ? replicas[0] : FollowerStatus{};
  };
  REQUIRE(Eventually(
      [&] { return follower().acked_index == last && follower().applied_index == last; }));
  CHECK(follower().node == "b");
  CHECK(follower().address == "b:1");
  CHECK(follower().connected);
  CHECK(follower().lag_ms == 0);
  CHECK(b.log().synced_index() == last);

  b.Stop();
  REQUIRE(Eventually([&] { return !follower().connected; }));
  CHECK(follower().acked_index == last);
  a.Commit("x.db");
  CHECK(Eventually([&] { return follower().lag_ms > 0; }));
}

TEST_CASE("a replica goes on where it was after a stop and after a crash") {
  TestNode a("a");
  TestNode b("b");
  REQUIRE(a.StartPrimary().ok());
  {
    Writer writer(&a, {"x.db", "y.db", "z.db"});
    REQUIRE(b.StartReplica(a.address()).ok());
    writer.WaitFor(20);
    b.Stop();
    writer.WaitFor(20);
    REQUIRE(b.StartReplica(a.address()).ok());
    writer.WaitFor(20);
    b.Kill();
    writer.WaitFor(20);
    REQUIRE(b.StartReplica(a.address()).ok());
    writer.WaitFor(20);
  }
  REQUIRE(Converges(a, b));
  CHECK(b.store().installs("x.db") == 0);
}

TEST_CASE("entries that are in the log but not in the files are applied after a restart") {
  TestNode a("a");
  TestNode b("b");
  REQUIRE(a.StartPrimary().ok());
  REQUIRE(b.StartReplica(a.address()).ok());
  a.Commit("x.db");
  REQUIRE(Converges(a, b));
  b.store().SetBlocked("x.db", 77);
  const LogIndex last = a.Commit("x.db", 10);
  REQUIRE(Eventually([&] { return b.log().last_index() == last; }));
  b.Kill();
  a.Kill();
  b.store().SetBlocked("x.db", 0);
  REQUIRE(b.StartReplica(a.address()).ok());
  // The primary is not there: they come from the own log.
  REQUIRE(Eventually([&] { return b.node().status().applied_index == last; }));
  CHECK(b.store().Dump() == a.store().Dump());
}

TEST_CASE("a restarted primary opens a new term and its replica follows on (R1)") {
  TestNode a("a");
  TestNode b("b");
  REQUIRE(a.StartPrimary().ok());
  CHECK(a.node().term() == Term{1});
  REQUIRE(b.StartReplica(a.address()).ok());
  a.Commit("x.db", 10);
  REQUIRE(Converges(a, b));
  const std::string cluster = a.node().status().cluster_id;
  a.Stop();
  REQUIRE(Eventually([&] { return !b.node().status().connected; }));
  CHECK(b.node().status().last_error.find(a.address()) != std::string::npos);
  REQUIRE(a.StartPrimary().ok());
  CHECK(a.node().term() == Term{3});
  CHECK(a.node().status().cluster_id == cluster);
  const auto first = a.log().Read(a.log().last_index())->Next();
  REQUIRE(first.ok());
  CHECK((*first)->kind == EntryKind::kOpenTerm);
  CHECK((*first)->term == Term{3});
  a.Commit("x.db", 10);
  REQUIRE(Converges(a, b));
  CHECK(b.node().status().last_error.empty());
  CHECK(b.store().installs("x.db") == 0);
}

TEST_CASE("many databases and two replicas converge while they are written") {
  TestNode a("a");
  TestNode b("b");
  TestNode c("c");
  REQUIRE(a.StartPrimary().ok());
  REQUIRE(b.StartReplica(a.address()).ok());
  std::vector<std::string> databases;
  for (int i = 0; i < 30; ++i) databases.push_back("d" + std::to_string(i) + ".db");
  {
    Writer writer(&a, databases);
    writer.WaitFor(5);
    REQUIRE(c.StartReplica(a.address()).ok());
    writer.WaitFor(10);
  }
  CHECK(Converges(a, b));
  CHECK(Converges(a, c));
}

TEST_CASE("a drop, and a database that is made again, reach the replica") {
  TestNode a("a");
  TestNode b("b");
  REQUIRE(a.StartPrimary().ok());
  REQUIRE(b.StartReplica(a.address()).ok());
  a.Commit("x.db", 3);
  a.Commit("y.db", 3);
  REQUIRE(Converges(a, b));
  a.Drop("x.db");
  REQUIRE(Converges(a, b));
  CHECK(b.store().LocalDatabases() == std::vector<std::string>{"y.db"});
  CHECK(b.database("x.db").name.empty());
  a.Commit("x.db", 2);
  REQUIRE(Converges(a, b));
  b.Kill();
  a.Drop("x.db");
  a.Commit("x.db", 2);
  a.Drop("y.db");
  REQUIRE(b.StartReplica(a.address()).ok());
  REQUIRE(Converges(a, b));
  CHECK(b.store().installs("x.db") == 0);
}

TEST_CASE("chunks are small and hold several records, and heartbeats come") {
  TestNode a("a");
  REQUIRE(a.StartPrimary().ok());
  const LogIndex last = a.Commit("x.db", 300);
  const std::unique_ptr<FollowCall> call = FollowByHand(a.address(), {}, {});
  v1::FollowResponse response;
  REQUIRE(call->Read(&response));
  REQUIRE(response.has_hello());
  CHECK(response.hello().last_index() == last.value);
  CHECK(response.hello().cluster_id() == a.node().status().cluster_id);
  std::string records;
  int chunks = 0;
  int heartbeats = 0;
  LogIndex received;
  while (received < last || heartbeats < 2) {
    REQUIRE(call->Read(&response));
    if (response.has_heartbeat()) {
      ++heartbeats;
      CHECK(response.heartbeat().last_index() == last.value);
      continue;
    }
    REQUIRE(response.has_chunk());
    ++chunks;
    CHECK(response.chunk().data().size() <= kRecordChunkSizeMax);
    records += response.chunk().data();
    bool whole = true;
    while (!records.empty()) {
      const absl::StatusOr<LogEntry> entry = DecodeEntryHeader(AsBytes(records));
      whole = entry.ok() && entry->RecordSize() <= records.size();
      if (!whole) break;
      REQUIRE(entry->index == received.Next());
      received = entry->index;
      records.erase(0, entry->RecordSize());
    }
    CHECK(response.chunk().last() == whole);
  }
  CHECK(chunks < 50);
}

TEST_CASE("a large entry streams in small chunks and does not wait in memory") {
  TestNode a("a");
  TestNode b("b");
  a.KeepLog();
  b.KeepLog();
  REQUIRE(a.StartPrimary().ok());
  REQUIRE(b.StartReplica(a.address()).ok());
  // 100 MB that do not compress.
  constexpr std::uint32_t kPageSize = 65536;
  constexpr PageNumber kPages = 1600;
  PageStore::Pages pages;
  std::uint64_t random = 1;
  for (PageNumber number = 1; number <= kPages; ++number) {
    PageStore::Page page(kPageSize);
    for (std::uint8_t& byte : page) {
      random = random * 6364136223846793005u + 1442695040888963407u;
      byte = static_cast<std::uint8_t>(random >> 56);
    }
    pages[number] = std::move(page);
  }
  a.Commit("small.db");
  a.store().Commit(a.log(), a.node().term(), "large.db", kPageSize, kPages, pages);
  a.Commit("small.db");
  REQUIRE(Converges(a, b));
  CHECK(b.node().apply_memory_bytes_max() < kQueuedPayloadSizeMax);

  const std::unique_ptr<FollowCall> call = FollowByHand(a.address(), {}, {});
  std::uint64_t received = 0;
  std::size_t largest = 0;
  while (received < std::uint64_t{kPages} * kPageSize) {
    const std::size_t size = NextChunkSize(*call);
    received += size;
    largest = std::max(largest, size);
  }
  CHECK(largest == kRecordChunkSizeMax);
}

TEST_CASE("what waits for a blocked database is kept in memory only up to the limit") {
  TestNode a("a");
  TestNode b("b");
  a.KeepLog();
  b.KeepLog();
  REQUIRE(a.StartPrimary().ok());
  REQUIRE(b.StartReplica(a.address()).ok());
  a.Commit("x.db");
  REQUIRE(Converges(a, b));
  b.store().SetBlocked("x.db", 5);
  constexpr std::uint32_t kPageSize = 65536;
  std::uint64_t random = 1;
  LogIndex last;
  for (int i = 0; i < 60; ++i) {  // 60 MB
    PageStore::Pages pages;
    for (PageNumber number = 1; number <= 16; ++number) {
      PageStore::Page page(kPageSize);
      for (std::uint8_t& byte : page) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        byte = static_cast<std::uint8_t>(random >> 56);
      }
      pages[number] = std::move(page);
    }
    last = a.store().Commit(a.log(), a.node().term(), "x.db", kPageSize, 16, pages);
  }
  REQUIRE(Eventually([&] { return b.log().last_index() == last; }));
  CHECK(b.node().apply_memory_bytes_max() <= kApplyQueueSizeMax);
  CHECK(b.node().apply_memory_bytes_max() > kApplyQueueSizeMax / 2);
  b.store().SetBlocked("x.db", 0);
  CHECK(Converges(a, b));
  CHECK(b.store().installs("x.db") == 0);
}

TEST_CASE("a replica that acknowledges nothing is sent no more than the window") {
  TestNode a("a");
  a.KeepLog();
  REQUIRE(a.StartPrimary().ok());
  LogEntry entry;
  entry.term = a.node().term();
  entry.database = "x.db";
  entry.page_size = 4096;
  entry.page_count = 1;
  const std::vector<std::uint8_t> payload(1 << 20);
  LogIndex last;
  for (std::uint64_t i = 1; i <= 100; ++i) {
    entry.txid = {i};
    entry.digest_before = i - 1;
    entry.digest_after = i;
    last = *a.log().Append(entry, payload);
  }
  const std::unique_ptr<FollowCall> call = FollowByHand(a.address(), {}, {});
  v1::FollowResponse response;
  std::uint64_t received = 0;
  int heartbeats = 0;
  // Three heartbeats: it is alive, and sends nothing.
  while (heartbeats < 3 || received == 0) {
    REQUIRE(call->Read(&response));
    if (response.has_heartbeat()) ++heartbeats;
    if (response.has_chunk()) {
      received += response.chunk().data().size();
      heartbeats = 0;
    }
  }
  CHECK(received <= kUnacknowledgedSizeMax);
  CHECK(received > kUnacknowledgedSizeMax / 2);
  v1::FollowRequest request;
  request.mutable_ack()->set_synced_index(received / payload.size());
  REQUIRE(call->Write(request));
  while (received < 100 * payload.size()) received += NextChunkSize(*call);
}

TEST_CASE("an acknowledgement of what was never sent ends the stream") {
  TestNode a("a");
  REQUIRE(a.StartPrimary().ok());
  const std::unique_ptr<FollowCall> call = FollowByHand(a.address(), {}, {});
  v1::FollowResponse response;
  REQUIRE(call->Read(&response));
  v1::FollowRequest request;
  request.mutable_ack()->set_synced_index(1000);
  REQUIRE(call->Write(request));
  while (call->Read(&response)) {
  }
  CHECK(!call->Finish().ok());
  // A primary that stops does not wait for calls that say nothing.
  const std::unique_ptr<PrimaryChannel> channel = MakeGrpcConnector()->Connect(a.address());
  const std::unique_ptr<FollowCall> silent = channel->Follow();
  a.Stop();
  CHECK(!silent->Read(&response));
}

}  // namespace
}  // namespace echofs
