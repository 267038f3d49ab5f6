// What a replica asks is checked before it is believed.
#include <functional>
#include <map>
#include <string>

#include "echofs/v1/replication.pb.h"
#include "replication/grpc_client.h"
#include "replication/limits.h"
#include "replication/log_match.h"
#include "tests/catch.h"
#include "tests/replication/bad_names.h"
#include "tests/replication/test_cluster.h"

namespace echofs {
namespace {

TEST_CASE("impossible histories of terms are refused (L3)") {
  TestNode a("a");
  REQUIRE(a.StartPrimary().ok());
  a.Commit("x.db", 3);
  const auto add = [](v1::Hello& hello, std::uint64_t term, std::uint64_t first) {
    hello.add_terms()->set_term(term);
    hello.mutable_terms()->rbegin()->set_first_index(first);
  };
  std::map<std::string, std::function<void(v1::Hello&)>> bad;
  bad["terms that fall"] = [&](v1::Hello& hello) { add(hello, 5, 1), add(hello, 4, 2); };
  bad["indexes that fall"] = [&](v1::Hello& hello) { add(hello, 5, 9), add(hello, 6, 2); };
  bad["term 0"] = [&](v1::Hello& hello) { add(hello, 0, 1); };
  bad["too many"] = [&](v1::Hello& hello) {
    for (std::uint64_t i = 1; i <= kTermHistoryMax + 1; ++i) add(hello, i, i);
  };
  for (const auto& [what, change] : bad) {
    INFO(what);
    const std::unique_ptr<PrimaryChannel> channel = MakeGrpcConnector()->Connect(a.address());
    const std::unique_ptr<FollowCall> call = channel->Follow();
    v1::FollowRequest request;
    v1::Hello& hello = *request.mutable_hello();
    hello.set_protocol_version(kProtocolVersion);
    hello.set_node("by-hand");
    hello.set_last_index(100);
    change(hello);
    REQUIRE(call->Write(request));
    v1::FollowResponse response;
    while (call->Read(&response)) CHECK(response.has_hello());
    CHECK(absl::IsInvalidArgument(call->Finish()));
  }
}

TEST_CASE("another protocol version is refused by name, a field of a later one is not minded") {
  TestNode a("a");
  REQUIRE(a.StartPrimary().ok());
  const auto follow = [&](std::uint32_t version, const std::string& unknown_field) {
    const std::unique_ptr<PrimaryChannel> channel = MakeGrpcConnector()->Connect(a.address());
    const std::unique_ptr<FollowCall> call = channel->Follow();
    v1::Hello hello;
    hello.set_protocol_version(version);
    hello.set_node("by-hand");
    v1::FollowRequest request;
    REQUIRE(request.mutable_hello()->ParseFromString(hello.SerializeAsString() + unknown_field));
    REQUIRE(call->Write(request));
    v1::FollowResponse response;
    if (call->Read(&response) && response.has_hello()) {
      call->Cancel();
      while (call->Read(&response)) {
      }
      (void)call->Finish();
      return absl::OkStatus();
    }
    return call->Finish();
  };
  const absl::Status refused = follow(kProtocolVersion + 1, "");
  CHECK(absl::IsFailedPrecondition(refused));
  CHECK(std::string(refused.message()).find("speaks protocol version") != std::string::npos);
  // Field 1000, a varint.
  CHECK(follow(kProtocolVersion, std::string("\xc0\x3e\x05")).ok());
}

TEST_CASE("impossible page ranges are refused, possible ones are sent and no more") {
  TestNode a("a");
  REQUIRE(a.StartPrimary().ok());
  PageStore::Pages pages;
  for (PageNumber number = 1; number <= 600; ++number) {
    pages[number] = PageStore::Page(kTestPageSize, static_cast<std::uint8_t>(number));
  }
  a.store().Commit(a.log(), a.node().term(), "x.db", kTestPageSize, 600, pages);
  const std::unique_ptr<PrimaryChannel> channel = MakeGrpcConnector()->Connect(a.address());
  using Ranges = std::vector<std::pair<std::uint32_t, std::uint32_t>>;
  const auto fetch = [&](const Ranges& ranges, std::uint64_t* count) {
    v1::FetchDatabaseRequest request;
    request.set_cluster_id(a.node().status().cluster_id);
    request.set_node("by-hand");
    request.set_database("x.db");
    for (const auto& [first, last] : ranges) {
      request.add_pages()->set_first(first);
      request.mutable_pages()->rbegin()->set_last(last);
    }
    const std::unique_ptr<FetchCall> call = channel->FetchDatabase(request);
    v1::FetchDatabaseResponse response;
    *count = 0;
    while (call->Read(&response)) *count += response.pages().data().size() / kTestPageSize;
    return call->Finish();
  };
  std::uint64_t count = 0;
  for (const Ranges& bad : {Ranges{{0, 1}}, Ranges{{5, 4}}, Ranges{{1, 9}, {9, 10}},
                            Ranges{{7, 8}, {1, 2}}, Ranges(kFetchRangesMax + 1, {1, 1})}) {
    CHECK(absl::IsInvalidArgument(fetch(bad, &count)));
    CHECK(count == 0);
  }
  CHECK(fetch({{3, 3}, {10, 300}}, &count).ok());
  CHECK(count == 292);
  CHECK(fetch({{590, 0xffffffff}}, &count).ok());
  CHECK(count == 11);
  CHECK(fetch({{601, 700}}, &count).ok());
  CHECK(count == 0);
  CHECK(fetch({}, &count).ok());
  CHECK(count == 600);
}

TEST_CASE("names that no database may have are refused when a copy is asked for") {
  TestNode a("a");
  REQUIRE(a.StartPrimary().ok());
  a.Commit("x.db", 1);
  const std::unique_ptr<PrimaryChannel> channel = MakeGrpcConnector()->Connect(a.address());
  for (const auto& [what, name] : BadDatabaseNames()) {
    INFO(what);
    v1::FetchDatabaseRequest request;
    request.set_cluster_id(a.node().status().cluster_id);
    request.set_node("by-hand");
    request.set_database(name);
    const std::unique_ptr<FetchCall> call = channel->FetchDatabase(request);
    v1::FetchDatabaseResponse response;
    CHECK_FALSE(call->Read(&response));
    CHECK(absl::IsInvalidArgument(call->Finish()));
  }
}

TEST_CASE("calls of another cluster's nodes are refused, and told so") {
  TestNode a("a");
  REQUIRE(a.StartPrimary().ok());
  const std::unique_ptr<PrimaryChannel> channel = MakeGrpcConnector()->Connect(a.address());
  v1::FetchDatabaseRequest fetch;
  fetch.set_cluster_id("another");
  fetch.set_database("x.db");
  const absl::Status copied = channel->FetchDatabase(fetch)->Finish();
  CHECK(absl::IsFailedPrecondition(copied));
  CHECK(std::string(copied.message()).find("cluster another") != std::string::npos);
  v1::RequestHandoffRequest handoff;
  handoff.set_cluster_id("another");
  handoff.set_target("x");
  CHECK(absl::IsFailedPrecondition(channel->RequestHandoff(handoff)));
  const std::unique_ptr<FollowCall> follow = channel->Follow();
  v1::FollowRequest request;
  request.mutable_hello()->set_protocol_version(kProtocolVersion);
  request.mutable_hello()->set_cluster_id("another");
  request.mutable_hello()->set_node("x");
  CHECK(follow->Write(request));
  v1::FollowResponse response;
  CHECK_FALSE(follow->Read(&response));
  const absl::Status followed = follow->Finish();
  CHECK(absl::IsFailedPrecondition(followed));
  CHECK(std::string(followed.message()).find("belongs to another cluster") != std::string::npos);
}

}  // namespace
}  // namespace echofs
