// What comes off the wire is checked before it is believed: a fake primary sends a replica damaged
// and impossible messages. None of them may leave a trace, and the replica goes on when the next
// ones are right.
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "echofs/v1/replication.pb.h"
#include "replication/grpc_server.h"
#include "replication/limits.h"
#include "tests/catch.h"
#include "tests/replication/test_cluster.h"

namespace echofs {
namespace {

// Answers every Follow with a Hello and the next script of messages, the last one again and again.
// A replica that has entry 1 is not sent the script's first message.
class FakePrimary final : public ReplicationService {
 public:
  using Script = std::vector<v1::FollowResponse>;

  FakePrimary() { server_ = *GrpcServer::Start("127.0.0.1:0", this); }

  absl::Status Follow(FollowServerStream& stream) override {
    v1::FollowRequest request;
    if (!stream.Read(&request)) return absl::OkStatus();
    std::vector<Script> scripts;
    {
      absl::MutexLock lock(&mutex_);
      ++calls_;
      last_hello_ = request.hello();
      scripts = scripts_;
      if (scripts_.size() > 1) scripts_.erase(scripts_.begin());
    }
    v1::FollowResponse response;
    response.mutable_hello()->set_protocol_version(kProtocolVersion);
    response.mutable_hello()->set_cluster_id("c");
    response.mutable_hello()->set_node("fake");
    response.mutable_hello()->set_term(1);
    AddTerms(response.mutable_hello());
    if (!stream.Write(response)) return absl::OkStatus();
    const Script& script = scripts.at(0);
    for (std::size_t i = request.hello().last_index() == 0 ? 0 : 1; i < script.size(); ++i) {
      if (!stream.Write(script[i])) return absl::OkStatus();
    }
    while (stream.Read(&request)) {
    }
    return absl::OkStatus();
  }
  absl::Status FetchDatabase(const v1::FetchDatabaseRequest&, FetchServerStream&) override {
    return absl::NotFoundError("nothing to copy here");
  }
  absl::Status RequestHandoff(const v1::RequestHandoffRequest&) override {
    return absl::UnavailableError("not the primary");
  }
  absl::Status ListPositions(const v1::ListPositionsRequest&,
                             const std::function<bool(const v1::NodeDatabase&)>&) override {
    return absl::UnimplementedError("nobody asks for positions here");
  }
  absl::Status ImportDatabase(ImportServerStream&, v1::ImportDatabaseResponse*) override {
    return absl::UnimplementedError("nothing is imported here");
  }

  void SetScripts(std::vector<Script> scripts) {
    absl::MutexLock lock(&mutex_);
    scripts_ = std::move(scripts);
  }
  // The history of terms in its Hellos; its log ends at `last_index`.
  void SetTerms(std::vector<TermStart> terms, std::uint64_t last_index) {
    absl::MutexLock lock(&mutex_);
    terms_ = std::move(terms);
    last_index_ = last_index;
  }
  int calls() {
    absl::MutexLock lock(&mutex_);
    return calls_;
  }
  v1::Hello last_hello() {
    absl::MutexLock lock(&mutex_);
    return last_hello_;
  }
  std::string address() const { return "127.0.0.1:" + std::to_string(server_->port()); }

 private:
  void AddTerms(v1::Hello* hello) {
    absl::MutexLock lock(&mutex_);
    hello->set_last_index(last_index_);
    for (const TermStart& start : terms_) {
      hello->add_terms()->set_term(start.term.value);
      hello->mutable_terms()->rbegin()->set_first_index(start.first.value);
    }
  }

  absl::Mutex mutex_;
  std::vector<TermStart> terms_ ABSL_GUARDED_BY(mutex_);
  std::uint64_t last_index_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<Script> scripts_ ABSL_GUARDED_BY(mutex_) = {{}};
  int calls_ ABSL_GUARDED_BY(mutex_) = 0;
  v1::Hello last_hello_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<GrpcServer> server_;  // last: it is stopped before the rest goes
};

v1::FollowResponse Chunk(const std::string& data, bool last = true) {
  v1::FollowResponse response;
  response.mutable_chunk()->set_data(data);
  response.mutable_chunk()->set_last(last);
  return response;
}

// The records 1 to 4 of a real log: a term, and three change sets of x.db.
std::vector<std::string> RealRecords(TestNode& source) {
  REQUIRE(source.StartPrimary().ok());
  source.Commit("x.db", 3);
  std::vector<std::string> records;
  const std::unique_ptr<LogReader> reader = source.log().Read({1});
  while (true) {
    const auto entry = reader->Next();
    REQUIRE(entry.ok());
    if (!entry->has_value()) return records;
    std::string& record = records.emplace_back((*entry)->RecordSize(), '\0');
    REQUIRE(
        ReadExactly(*reader->Record(),
                    MutableByteView(reinterpret_cast<std::uint8_t*>(record.data()), record.size()))
            .ok());
  }
}

std::string Flipped(std::string record, std::size_t offset) {
  record.at(offset) = static_cast<char>(record.at(offset) ^ 0x40);
  return record;
}

// A record with this header and a right checksum over it; no payload.
std::string Record(const std::function<void(LogEntry&)>& change) {
  LogEntry entry;
  entry.index = {2};
  entry.term = {1};
  entry.database = "x.db";
  entry.txid = {1};
  entry.digest_after = 5;
  entry.page_size = 512;
  entry.page_count = 1;
  change(entry);
  std::string record = EncodeEntryHeader(entry);
  std::string trailer(8, '\0');
  StoreBe64(reinterpret_cast<std::uint8_t*>(trailer.data()), PayloadChecksum().Value());
  return record + trailer;
}

TEST_CASE("damaged and impossible records are refused, and the stream starts again (L2, L3)") {
  TestNode source("source");
  const std::vector<std::string> records = RealRecords(source);
  const std::string& good = records[1];
  std::map<std::string, v1::FollowResponse> bad;
  bad["header bit"] = Chunk(Flipped(good, 33));
  bad["name bit"] = Chunk(Flipped(good, kRecordHeaderSize));
  bad["payload bit"] = Chunk(Flipped(good, good.size() / 2));
  bad["trailer bit"] = Chunk(Flipped(good, good.size() - 1));
  bad["magic"] = Chunk(std::string(200, 'x'));
  bad["record twice"] = Chunk(records[0]);
  bad["record left out"] = Chunk(records[2]);
  bad["chunk too large"] = Chunk(std::string(kRecordChunkSizeMax + 1, 'x'), false);
  bad["empty chunk"] = Chunk("");
  bad["end where there is none"] = Chunk(good.substr(0, 200), true);
  bad["term of the future"] = Chunk(Record([](LogEntry& entry) { entry.term = {2}; }));
  bad["name that leaves the directory"] =
      Chunk(Record([](LogEntry& entry) { entry.database = "../x.db"; }));
  bad["absolute name"] = Chunk(Record([](LogEntry& entry) { entry.database = "/etc/x.db"; }));
  bad["huge payload"] = Chunk(Record([](LogEntry& entry) { entry.payload_size = ~0ull; }), false);
  bad["gap in TXIDs"] = Chunk(Record([](LogEntry& entry) { entry.txid = {7}; }));
  bad["gap in digests"] = Chunk(Record([](LogEntry& entry) { entry.digest_before = 7; }));
  bad["hello again"].mutable_hello()->set_node("x");
  bad["base after records"].mutable_base()->set_index(100);
  bad["rewind after records"].mutable_rewind()->set_index(0);
  bad["nothing"] = v1::FollowResponse();
  bad["other term"].mutable_heartbeat()->set_term(9);

  for (const auto& [what, message] : bad) {
    DYNAMIC_SECTION(what) {
      TestNode b("b");
      FakePrimary fake;
      v1::FollowResponse heartbeat;
      heartbeat.mutable_heartbeat()->set_term(1);
      fake.SetScripts({{Chunk(records[0]), heartbeat, message}});
      REQUIRE(b.StartReplica(fake.address()).ok());
      // The first record came, the bad message ended the stream, again and again.
      REQUIRE(Eventually([&] { return fake.calls() >= 3; }));
      CHECK(fake.last_hello().last_index() == 1);
      CHECK(b.log().last_index() == LogIndex{1});
      CHECK(b.store().LocalDatabases().empty());
      CHECK(Eventually([&] { return !b.node().status().last_error.empty(); }));

      fake.SetScripts(
          {{Chunk(records[0]), Chunk(records[1]), Chunk(records[2].substr(0, 50), false),
            Chunk(records[2].substr(50) + records[3])}});
      REQUIRE(Eventually([&] { return b.node().status().applied_index == LogIndex{4}; }));
      CHECK(b.store().Dump() == source.store().Dump());
    }
  }
}

TEST_CASE("an impossible catalog is refused before anything is thrown away") {
  TestNode source("source");
  const std::vector<std::string> records = RealRecords(source);
  const auto base = [](const std::function<void(v1::LogBase&)>& change) {
    v1::FollowResponse response;
    v1::LogBase* message = response.mutable_base();
    message->set_index(10);
    message->set_term(1);
    v1::DatabasePosition* database = message->add_databases();
    database->set_name("y.db");
    database->set_txid(1);
    database->set_page_size(512);
    database->set_index(9);
    change(*message);
    return response;
  };
  std::map<std::string, v1::FollowResponse> bad;
  bad["name"] = base([](v1::LogBase& m) { m.mutable_databases(0)->set_name("../y.db"); });
  bad["page size"] = base([](v1::LogBase& m) { m.mutable_databases(0)->set_page_size(513); });
  bad["index"] = base([](v1::LogBase& m) { m.mutable_databases(0)->set_index(11); });
  bad["twice"] = base([](v1::LogBase& m) { *m.add_databases() = m.databases(0); });
  for (const auto& [what, message] : bad) {
    DYNAMIC_SECTION(what) {
      TestNode b("b");
      FakePrimary fake;
      fake.SetScripts({{Chunk(records[0] + records[1])}, {Chunk(records[0]), message}});
      REQUIRE(b.StartReplica(fake.address()).ok());
      REQUIRE(Eventually([&] { return b.node().status().applied_index == LogIndex{2}; }));
      b.Stop();
      REQUIRE(b.StartReplica(fake.address()).ok());
      const int calls = fake.calls();
      REQUIRE(Eventually([&] { return fake.calls() > calls + 1; }));
      CHECK(b.log().last_index() == LogIndex{2});
      CHECK(b.store().LocalDatabases() == std::vector<std::string>{"x.db"});
    }
  }
}

TEST_CASE("an impossible rewind is refused before anything is cut or kept (R5)") {
  TestNode source("source");
  const std::vector<std::string> records = RealRecords(source);
  struct Case {
    std::vector<TermStart> terms;
    std::uint64_t index;
    std::uint64_t term;
  };
  std::map<std::string, Case> bad;
  bad["no history"] = {{}, 2, 1};
  bad["a history in the wrong order"] = {{{{2}, {5}}, {{1}, {1}}}, 2, 1};
  bad["not where they part"] = {{{{1}, {1}}}, 2, 1};
  bad["another term"] = {{{{1}, {1}}}, 3, 2};
  bad["beyond the end"] = {{{{1}, {1}}}, 100, 1};
  for (const auto& [what, rewind] : bad) {
    DYNAMIC_SECTION(what) {
      TestNode b("b");
      FakePrimary fake;
      v1::FollowResponse message;
      message.mutable_rewind()->set_index(rewind.index);
      message.mutable_rewind()->set_term(rewind.term);
      fake.SetScripts({{Chunk(records[0] + records[1] + records[2] + records[3])},
                       {Chunk(records[0]), message}});
      REQUIRE(b.StartReplica(fake.address()).ok());
      REQUIRE(Eventually([&] { return b.node().status().applied_index == LogIndex{4}; }));
      b.Stop();
      fake.SetTerms(rewind.terms, 3);
      REQUIRE(b.StartReplica(fake.address()).ok());
      const int calls = fake.calls();
      REQUIRE(Eventually([&] { return fake.calls() > calls + 1; }));
      CHECK(b.log().last_index() == LogIndex{4});
      CHECK(b.node().orphans()->change_sets() == 0);
      CHECK(b.store().Dump() == source.store().Dump());
    }
  }
}

}  // namespace
}  // namespace echofs
