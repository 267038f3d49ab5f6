// Nodes whose logs have entries that the cluster's history lacks (R5, D4): the entries are kept, and the
// databases are taken back by the pages that they touched.
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "replication/orphan_store.h"
#include "replication/replica.h"
#include "tests/catch.h"
#include "tests/replication/test_cluster.h"

namespace echofs {
namespace {

constexpr PageNumber kPages = 4000;

PageStore::Page TestPage(std::uint32_t seed) {
  PageStore::Page page(kTestPageSize);
  for (std::size_t i = 0; i < page.size(); ++i) {
    page[i] = static_cast<std::uint8_t>(seed >> (8 * (i % 4)));
  }
  page[9] = static_cast<std::uint8_t>(seed * 7);
  return page;
}

// Writes these pages of a database that has `count` afterwards.
LogIndex Write(TestNode& node, const std::string& database, PageNumber count,
               const std::vector<PageNumber>& numbers, std::uint32_t seed) {
  PageStore::Pages pages;
  for (const PageNumber number : numbers) pages[number] = TestPage(seed * 10007 + number);
  return node.store().Commit(node.log(), node.node().term(), database, kTestPageSize, count, pages);
}

LogIndex WriteAll(TestNode& node, const std::string& database, PageNumber count,
                  std::uint32_t seed) {
  std::vector<PageNumber> numbers;
  for (PageNumber number = 1; number <= count; ++number) numbers.push_back(number);
  return Write(node, database, count, numbers, seed);
}

// A lease gave this node the term, which no other node has.
void OpenTerm(TestNode& node, std::uint64_t term) {
  const auto log = ChangeLog::Open(node.directory() + "/log", node.log_options);
  REQUIRE(log.ok());
  LogEntry entry;
  entry.kind = EntryKind::kOpenTerm;
  entry.term = {term};
  REQUIRE((*log)->Append(entry, {}).ok());
}

using Records = std::map<std::uint64_t, std::vector<std::uint8_t>>;

// The records of a log after `from`, by index.
Records RecordsAfter(ChangeLog& log, LogIndex from) {
  Records records;
  const std::unique_ptr<LogReader> reader = log.Read(from.Next());
  while (true) {
    const auto entry = reader->Next();
    REQUIRE(entry.ok());
    if (!entry->has_value()) return records;
    std::vector<std::uint8_t> payload((*entry)->payload_size);
    REQUIRE(ReadExactly(*reader->Payload(), payload).ok());
    std::vector<std::uint8_t>& record = records[(*entry)->index.value];
    const std::string header = EncodeEntryHeader(**entry);
    record.assign(header.begin(), header.end());
    record.insert(record.end(), payload.begin(), payload.end());
  }
}

// The same of everything that a store keeps; an entry that is there twice is an error.
Records Kept(OrphanStore& store) {
  Records records;
  const auto list = store.List();
  REQUIRE(list.ok());
  for (const OrphanInfo& info : *list) {
    const absl::Status read =
        store.Read(info.id, [&](const LogEntry& entry, ByteSource& payload) -> absl::Status {
          std::vector<std::uint8_t>& record = records[entry.index.value];
          REQUIRE(record.empty());
          const std::string header = EncodeEntryHeader(entry);
          record.assign(header.begin(), header.end());
          std::vector<std::uint8_t> bytes(entry.payload_size);
          REQUIRE(ReadExactly(payload, bytes).ok());
          record.insert(record.end(), bytes.begin(), bytes.end());
          return absl::OkStatus();
        });
    INFO(read.ToString());
    REQUIRE(read.ok());
  }
  return records;
}

// A primary and a replica that have the same; both keep their logs.
struct Pair {
  Pair() : a("a"), b("b") {
    a.KeepLog();
    b.KeepLog();
    REQUIRE(a.StartPrimary().ok());
    WriteAll(a, "x.db", kPages, 1);
    WriteAll(a, "y.db", 100, 2);
    REQUIRE(b.StartReplica(a.address()).ok());
    REQUIRE(Converges(a, b));
    common = a.log().last_index();
    b.Stop();
  }
  // B takes over without what A has committed since.
  void FailOver() {
    a.Kill();
    REQUIRE(b.StartPrimary().ok());
  }

  TestNode a;
  TestNode b;
  LogIndex common;
};

TEST_CASE("a former primary keeps its orphans and fetches only the pages that they touched (R5)") {
  Pair nodes;
  for (std::uint32_t i = 0; i < 100; ++i) {
    Write(nodes.a, "x.db", kPages, {1, 20 + i, 2000 + i * 3}, 100 + i);
  }
  const Records orphans = RecordsAfter(nodes.a.log(), nodes.common);
  nodes.FailOver();
  for (std::uint32_t i = 0; i < 50; ++i) {
    Write(nodes.b, "x.db", kPages, {1, 70 + i, 3900}, 300 + i);
    Write(nodes.b, "y.db", 100, {5}, 400 + i);
  }
  REQUIRE(nodes.a.StartReplica(nodes.b.address()).ok());
  REQUIRE(Converges(nodes.b, nodes.a));
  CHECK(Kept(*nodes.a.node().orphans()) == orphans);
  CHECK(nodes.a.store().page_installs("x.db") == 1);
  CHECK(nodes.a.store().installs("x.db") == 0);
  CHECK(nodes.a.store().page_installs("y.db") == 0);
  CHECK(nodes.a.store().installs("y.db") == 0);
  const NodeStatus status = nodes.a.node().status();
  CHECK(status.orphans == 100);
  CHECK(status.rewinds.databases == 1);
  CHECK(status.rewinds.pages == 201);  // page 1, 100 and 100
  CHECK(status.rewinds.bytes == 201 * kTestPageSize);
  CHECK(status.last_error.empty());
  // It follows on, and nothing is kept a second time after a restart.
  nodes.a.Stop();
  Write(nodes.b, "x.db", kPages, {3}, 999);
  REQUIRE(nodes.a.StartReplica(nodes.b.address()).ok());
  REQUIRE(Converges(nodes.b, nodes.a));
  CHECK(Kept(*nodes.a.node().orphans()) == orphans);
}

TEST_CASE("a database that grew and shrank in orphans and in the history is taken back") {
  Pair nodes;
  const int in_orphans = GENERATE(0, 1, 2);
  if (in_orphans == 0) {
    Write(nodes.a, "x.db", kPages - 20, {1}, 50);
    Write(nodes.a, "x.db", kPages + 30, {1, kPages + 30}, 51);
  } else if (in_orphans == 1) {
    Write(nodes.a, "x.db", kPages - 20, {1}, 50);
  } else {
    Write(nodes.a, "x.db", kPages + 300, {1, kPages + 2}, 50);
  }
  const std::uint64_t orphans = RecordsAfter(nodes.a.log(), nodes.common).size();
  nodes.FailOver();
  const int in_history = GENERATE(0, 1, 2, 3, 4);
  if (in_history == 1) {
    Write(nodes.b, "x.db", kPages, {7}, 80);
  } else if (in_history == 2) {
    Write(nodes.b, "x.db", kPages - 50, {2}, 60);
  } else if (in_history == 3) {  // with pages that are not written
    Write(nodes.b, "x.db", kPages + 10, {2, kPages + 5}, 60);
  } else if (in_history == 4) {
    Write(nodes.b, "x.db", kPages - 500, {2}, 60);
    Write(nodes.b, "x.db", kPages + 40, {3, kPages - 400}, 61);
    Write(nodes.b, "x.db", kPages - 10, {4}, 62);
    Write(nodes.b, "x.db", kPages - 5, {5, kPages - 5}, 63);
  }
  INFO("orphans " << in_orphans << ", history " << in_history);
  REQUIRE(nodes.a.StartReplica(nodes.b.address()).ok());
  REQUIRE(Converges(nodes.b, nodes.a));
  CHECK(nodes.a.store().page_installs("x.db") == 1);
  CHECK(nodes.a.store().installs("x.db") == 0);
  CHECK(nodes.a.node().status().orphans == orphans);
}

TEST_CASE("commits while the pages are fetched are in the result") {
  Pair nodes;
  for (std::uint32_t i = 0; i < 50; ++i) Write(nodes.a, "x.db", kPages, {1, 10 + 40 * i}, 100 + i);
  nodes.FailOver();
  std::atomic<std::uint32_t> step = 0;
  nodes.b.store().SetReadHook([&](const std::string&, PageNumber) {
    const std::uint32_t i = step++;
    Write(nodes.b, "x.db", kPages + i, {1, 10 + 40 * (i / 2), 500 + i}, 1000 + i);
    return absl::OkStatus();
  });
  REQUIRE(nodes.a.StartReplica(nodes.b.address()).ok());
  REQUIRE(Converges(nodes.b, nodes.a));
  CHECK(step == 51);
  CHECK(nodes.a.store().page_installs("x.db") == 1);
}

TEST_CASE("what single pages cannot do, a whole copy or a drop does") {
  Pair nodes;
  int copies = 1;
  SECTION("orphans touch too much") { WriteAll(nodes.a, "x.db", kPages / 2, 5); }
  SECTION("orphans delete it") {
    nodes.a.Drop("x.db");
    copies = 0;  // it comes from the log again
  }
  SECTION("orphans make it anew") {
    nodes.a.Drop("x.db");
    WriteAll(nodes.a, "x.db", 10, 5);
  }
  SECTION("the page size changed in orphans") {
    nodes.a.store().Commit(nodes.a.log(), nodes.a.node().term(), "x.db", 1024, 1,
                           {{1, PageStore::Page(1024, 4)}});
  }
  SECTION("orphans made a database that is not in the history") {
    copies = 0;
    WriteAll(nodes.a, "new.db", 10, 5);
  }
  SECTION("the page size changed in the history") {
    Write(nodes.a, "x.db", kPages, {3}, 5);
    copies = -1;
  }
  SECTION("the history deleted it") {
    Write(nodes.a, "x.db", kPages, {3}, 5);
    copies = -2;
  }
  SECTION("the history made it anew") {
    Write(nodes.a, "x.db", kPages, {3}, 5);
    copies = -3;
  }
  const std::uint64_t orphans = RecordsAfter(nodes.a.log(), nodes.common).size();
  nodes.FailOver();
  if (copies == -1) {
    nodes.b.store().Commit(nodes.b.log(), nodes.b.node().term(), "x.db", 1024, 1,
                           {{1, PageStore::Page(1024, 4)}});
  } else if (copies < -1) {
    nodes.b.Drop("x.db");
    if (copies == -3) WriteAll(nodes.b, "x.db", 20, 6);
  } else {
    Write(nodes.b, "y.db", 100, {3}, 5);
  }
  REQUIRE(nodes.a.StartReplica(nodes.b.address()).ok());
  REQUIRE(Converges(nodes.b, nodes.a));
  WriteAll(nodes.b, "new.db", 3, 8);
  REQUIRE(Converges(nodes.b, nodes.a));
  CHECK(nodes.a.store().page_installs("x.db") == 0);
  if (copies >= -1) CHECK(nodes.a.store().installs("x.db") == (copies == 0 ? 0 : 1));
  CHECK(nodes.a.node().status().orphans == orphans);
}

TEST_CASE("pages that do not lead to the right digest are followed by a whole copy (A6)") {
  Pair nodes;
  Write(nodes.a, "x.db", kPages, {3}, 5);
  nodes.FailOver();
  nodes.a.store().DamageNextApply("x.db");
  REQUIRE(nodes.a.StartReplica(nodes.b.address()).ok());
  REQUIRE(Converges(nodes.b, nodes.a));
  CHECK(nodes.a.store().page_installs("x.db") == 0);
  CHECK(nodes.a.store().installs("x.db") == 1);
}

TEST_CASE("a replica that is only behind has no orphans, and fetches nothing") {
  Pair nodes;
  for (std::uint32_t i = 0; i < 20; ++i) Write(nodes.a, "x.db", kPages, {3 + i}, 5);
  nodes.a.Stop();
  REQUIRE(nodes.a.StartPrimary().ok());  // another term
  REQUIRE(nodes.b.StartReplica(nodes.a.address()).ok());
  REQUIRE(Converges(nodes.a, nodes.b));
  CHECK(nodes.b.node().status().orphans == 0);
  CHECK(nodes.b.store().installs("x.db") == 0);
  CHECK(nodes.b.store().page_installs("x.db") == 0);
  // An opened term alone is nothing to keep.
  nodes.b.Kill();
  REQUIRE(nodes.b.StartPrimary().ok());
  nodes.b.Stop();
  nodes.a.Stop();
  REQUIRE(nodes.a.StartPrimary().ok());
  nodes.a.Stop();
  REQUIRE(nodes.a.StartPrimary().ok());
  REQUIRE(nodes.b.StartReplica(nodes.a.address()).ok());
  REQUIRE(Converges(nodes.a, nodes.b));
  CHECK(nodes.b.node().status().orphans == 0);
}

TEST_CASE("logs that parted before what the primary still has: orphans are kept, copies are made") {
  Pair nodes;
  Write(nodes.a, "x.db", kPages, {3}, 5);
  const Records orphans = RecordsAfter(nodes.a.log(), nodes.common);
  nodes.a.Kill();
  nodes.b.log_options.segment_size = 16 << 10;
  nodes.b.log_options.retention_size = 0;
  nodes.b.log_options.retention_age = absl::ZeroDuration();
  REQUIRE(nodes.b.StartPrimary().ok());
  Write(nodes.b, "x.db", kPages, {9}, 5);
  nodes.b.ForgetLog();
  REQUIRE(nodes.b.log().first_index() > nodes.common.Next());
  REQUIRE(nodes.a.StartReplica(nodes.b.address()).ok());
  REQUIRE(Converges(nodes.b, nodes.a));
  CHECK(Kept(*nodes.a.node().orphans()) == orphans);
  CHECK(nodes.a.store().installs("x.db") == 1);
  CHECK(nodes.a.log().Terms() == nodes.b.log().Terms());
}

TEST_CASE("a node that diverges twice keeps both, also when the first was not taken back yet") {
  Pair nodes;
  TestNode c("c");
  c.KeepLog();
  REQUIRE(nodes.b.StartReplica(nodes.a.address()).ok());
  REQUIRE(c.StartReplica(nodes.a.address()).ok());
  REQUIRE(Converges(nodes.a, nodes.b));
  REQUIRE(Converges(nodes.a, c));
  nodes.b.Stop();
  c.Stop();
  Write(nodes.a, "x.db", kPages, {3, 77}, 5);
  Records orphans = RecordsAfter(nodes.a.log(), nodes.common);
  nodes.FailOver();
  for (std::uint32_t i = 0; i < 10; ++i) Write(nodes.b, "x.db", kPages, {4, 78}, 6 + i);
  // A holds on to its own state, so that it cannot be taken back while B is the primary.
  nodes.a.store().SetBlocked("x.db", 9);
  REQUIRE(nodes.a.StartReplica(nodes.b.address()).ok());
  REQUIRE(Eventually([&] {
    return nodes.a.database("x.db").state == DatabaseState::kBlocked &&
           nodes.a.log().last_index() == nodes.b.log().last_index();
  }));
  const bool first_done = GENERATE(true, false);
  if (first_done) {
    nodes.a.store().SetBlocked("x.db", 0);
    REQUIRE(Converges(nodes.b, nodes.a));
  }
  orphans.merge(RecordsAfter(nodes.a.log(), nodes.common));
  nodes.b.Kill();
  // C never had any of it, and goes on from the common point in a higher term.
  OpenTerm(c, 7);
  REQUIRE(c.StartPrimary().ok());
  Write(c, "x.db", kPages, {5, 79}, 8);
  nodes.a.Stop();
  nodes.a.store().SetBlocked("x.db", 0);
  REQUIRE(nodes.a.StartReplica(c.address()).ok());
  REQUIRE(Converges(c, nodes.a));
  std::uint64_t kept = 0;
  const auto list = nodes.a.node().orphans()->List();
  REQUIRE(list.ok());
  CHECK(list->size() == 2);
  for (const OrphanInfo& info : *list) kept += info.change_sets;
  CHECK(kept == 11);
  if (first_done) {
    CHECK(nodes.a.store().page_installs("x.db") == 2);
    CHECK(nodes.a.store().installs("x.db") == 0);
  }
}

TEST_CASE("a node that stops before a database is taken back does not believe its files") {
  Pair nodes;
  Write(nodes.a, "x.db", kPages, {3}, 5);
  nodes.FailOver();
  nodes.a.store().SetBlocked("x.db", 9);
  REQUIRE(nodes.a.StartReplica(nodes.b.address()).ok());
  // It is blocked before it has met the primary, too.
  REQUIRE(Eventually([&] {
    return nodes.a.node().status().orphans == 1 &&
           nodes.a.database("x.db").state == DatabaseState::kBlocked;
  }));
  nodes.a.Kill();
  nodes.a.store().SetBlocked("x.db", 0);
  REQUIRE(nodes.a.StartReplica(nodes.b.address()).ok());
  REQUIRE(Converges(nodes.b, nodes.a));
  CHECK(nodes.a.store().page_installs("x.db") == 0);
  CHECK(nodes.a.node().status().orphans == 1);
}

TEST_CASE("orphans that cannot be kept are not cut, and it says so (D4)") {
  Pair nodes;
  Write(nodes.a, "x.db", kPages, {3}, 5);
  const Records orphans = RecordsAfter(nodes.a.log(), nodes.common);
  nodes.FailOver();
  // A file where the directory should be.
  const std::string path = nodes.a.directory() + "/orphans";
  REQUIRE(PosixStorage()->Open(path, OpenOptions{.create = true}).ok());
  REQUIRE(nodes.a.StartReplica(nodes.b.address()).code() != absl::StatusCode::kOk);
  std::filesystem::remove(path);
  REQUIRE(nodes.a.StartReplica(nodes.b.address()).ok());
  REQUIRE(Converges(nodes.b, nodes.a));
  CHECK(Kept(*nodes.a.node().orphans()) == orphans);
}

}  // namespace
}  // namespace echofs
