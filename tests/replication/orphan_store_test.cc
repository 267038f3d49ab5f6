// The store of orphans (D4): what is kept, once, whatever fails on the way.
#include "replication/orphan_store.h"

#include <filesystem>
#include <set>

#include "replication/page_set.h"
#include "tests/replication/faulty_storage.h"
#include "tests/replication/log_test_util.h"
#include "tests/replication/temp_directory.h"

namespace echofs {
namespace {

constexpr char kDb[] = "a.db";
constexpr std::uint64_t kEntries = 20;
const CommonPoint kCommon{true, {12}, {1}};

// A log with the change sets 1 to kEntries of term 1.
std::unique_ptr<ChangeLog> TestLog(const TempDirectory& dir, Storage* storage = PosixStorage()) {
  ChangeLogOptions options;
  options.storage = storage;
  auto log = OpenLog(dir / "log", options);
  for (std::uint64_t i = log->last_index().value + 1; i <= kEntries; ++i) {
    REQUIRE(log->Append(TestChange(kDb, i), TestPayload(i, 700)).ok());
  }
  REQUIRE(log->Sync(log->last_index()).ok());
  return log;
}

std::unique_ptr<OrphanStore> OpenStore(const TempDirectory& dir,
                                       Storage* storage = PosixStorage()) {
  auto store = OrphanStore::Open(storage, dir / "orphans");
  INFO(store.status().ToString());
  REQUIRE(store.ok());
  return *std::move(store);
}

// The store has exactly the change sets `from` to `to`, each with its payload.
bool Holds(OrphanStore& store, const std::string& id, std::uint64_t from, std::uint64_t to) {
  std::uint64_t next = from;
  bool right = true;
  const absl::Status read =
      store.Read(id, [&](const LogEntry& entry, ByteSource& payload) -> absl::Status {
        const auto bytes = ReadAll(payload);
        right &= bytes.ok() && *bytes == TestPayload(next, 700) && entry.txid.value == next;
        ++next;
        return absl::OkStatus();
      });
  return read.ok() && right && next == to + 1;
}

TEST_CASE("orphans are kept with their records, once, and found again") {
  TempDirectory dir;
  auto log = TestLog(dir);
  auto store = OpenStore(dir);
  CHECK(!std::filesystem::exists(dir / "orphans"));
  REQUIRE(store->Keep(*log, kCommon, "b", {2}).ok());
  REQUIRE(store->Keep(*log, kCommon, "b", {2}).ok());
  for (int round = 0; round < 2; ++round) {
    const auto list = store->List();
    REQUIRE(list.ok());
    REQUIRE(list->size() == 1);
    const OrphanInfo& info = list->front();
    CHECK(info.id == "1-13-20");
    CHECK(info.common.known);
    CHECK(info.common.index == LogIndex{12});
    CHECK(info.first == LogIndex{13});
    CHECK(info.last == LogIndex{20});
    CHECK(info.term == Term{1});
    CHECK(info.primary == "b");
    CHECK(info.primary_term == Term{2});
    CHECK(info.change_sets == 8);
    CHECK(info.kept_ms > 1600000000000);
    CHECK(info.databases.at(kDb) == 8);
    CHECK(store->change_sets() == 8);
    CHECK(Holds(*store, info.id, 13, 20));
    store = OpenStore(dir);
  }
  // A part of it is left of an interrupted cut: it is there already.
  REQUIRE(log->TruncateAfter({17}).ok());
  REQUIRE(store->Keep(*log, kCommon, "b", {2}).ok());
  CHECK(store->List()->size() == 1);
  // Other entries at the same indexes are others.
  REQUIRE(log->TruncateAfter({12}).ok());
  REQUIRE(log->Append(TestOpenTerm(3), {}).ok());
  REQUIRE(log->Append(TestChange(kDb, 13, 3), TestPayload(13, 700)).ok());
  REQUIRE(store->Keep(*log, kCommon, "c", {4}).ok());
  CHECK(store->List()->size() == 2);
  CHECK(store->change_sets() == 9);
  REQUIRE(store->Discard("1-13-20").ok());
  CHECK(absl::IsNotFound(store->Discard("1-13-20")));
  CHECK(absl::IsNotFound(store->Discard("../log/synced")));
  store = OpenStore(dir);
  CHECK(store->change_sets() == 1);
}

TEST_CASE("what only opens terms is not kept; what is not known to be common is") {
  TempDirectory dir;
  auto log = TestLog(dir);
  REQUIRE(log->Append(TestOpenTerm(2), {}).ok());
  auto store = OpenStore(dir);
  REQUIRE(store->Keep(*log, {true, {20}, {1}}, "b", {3}).ok());
  REQUIRE(store->Keep(*log, {true, {21}, {2}}, "b", {3}).ok());
  CHECK(store->List()->empty());
  REQUIRE(store->Keep(*log, {false, {15}, {}}, "b", {3}).ok());
  CHECK(store->change_sets() == kEntries);
  CHECK(!store->List()->front().common.known);
}

TEST_CASE("after a power loss at any step orphans are whole or not there, and kept once (D4)") {
  std::uint64_t steps = 0;
  for (std::uint64_t k = 1;; ++k) {
    for (const std::optional<std::uint64_t> seed :
         {std::optional<std::uint64_t>(), {k}, {k + 1000}}) {
      TempDirectory dir;
      FaultyStorage storage;
      auto log = TestLog(dir, &storage);
      auto store = OpenStore(dir, &storage);
      storage.FailOperation(k, FaultyStorage::kChanges, EIO, true);
      const absl::Status kept = store->Keep(*log, kCommon, "b", {2});
      const bool failed = storage.failed() > 0;
      CHECK(kept.ok() == !failed);
      log.reset();
      store.reset();
      storage.PowerLoss(seed);
      store = OpenStore(dir, &storage);
      if (!failed) CHECK(Holds(*store, "1-13-20", 13, 20));
      log = TestLog(dir, &storage);
      REQUIRE(store->Keep(*log, kCommon, "b", {2}).ok());
      // Only now may the log lose them, with the power going at once.
      storage.PowerLoss(seed);
      store = OpenStore(dir, &storage);
      CHECK(Holds(*store, "1-13-20", 13, 20));
      CHECK(store->List()->size() == 1);
      CHECK(storage.List(dir / "orphans")->size() == 1);
      if (!failed) {
        CHECK(steps >= 6);
        return;
      }
    }
    ++steps;
  }
}

TEST_CASE("a full disk while orphans are kept is an error that says so, and leaves nothing (D4)") {
  for (std::uint64_t k = 1; k < 100; ++k) {
    TempDirectory dir;
    FaultyStorage storage;
    auto log = TestLog(dir, &storage);
    auto store = OpenStore(dir, &storage);
    storage.FailOperation(k, FaultyStorage::kWrite, ENOSPC, true);
    const absl::Status kept = store->Keep(*log, kCommon, "b", {2});
    if (kept.ok()) {
      CHECK(k > 1);
      return;
    }
    CHECK(absl::IsResourceExhausted(kept));
    CheckSays(kept, "8 change sets");
    CheckSays(kept, "does not follow");
    CHECK(storage.List(dir / "orphans")->empty());
    storage.Heal();
    REQUIRE(store->Keep(*log, kCommon, "b", {2}).ok());
    CHECK(Holds(*store, "1-13-20", 13, 20));
  }
}

TEST_CASE("a damaged file of orphans is named, wherever the damage is") {
  TempDirectory dir;
  auto log = TestLog(dir);
  REQUIRE(OpenStore(dir)->Keep(*log, kCommon, "b", {2}).ok());
  const std::string path = dir / "orphans/1-13-20.orphans";
  const std::uint64_t size = std::filesystem::file_size(path);
  for (std::uint64_t offset = 0; offset < size; offset += offset < 400 ? 1 : 97) {
    const auto file = PosixStorage()->Open(path, {});
    std::uint8_t byte;
    REQUIRE((*file)->ReadAt(offset, {&byte, 1}).ok());
    const std::uint8_t wrong = byte ^ 0x40;
    REQUIRE((*file)->WriteAt(offset, {&wrong, 1}).ok());
    const auto store = OpenStore(dir);
    const auto nothing = [](const LogEntry&, ByteSource&) { return absl::OkStatus(); };
    const absl::Status read = store->Read("1-13-20", nothing);
    INFO("offset " << offset << ": " << read.ToString());
    CHECK(!read.ok());
    CheckSays(read, path);
    REQUIRE((*file)->WriteAt(offset, {&byte, 1}).ok());
  }
  std::filesystem::resize_file(path, size - 10);
  const auto store = OpenStore(dir);
  CHECK(!store->List()->front().damage.empty());
  // It can still be thrown away, and what it held is kept again from the log.
  REQUIRE(store->Keep(*log, kCommon, "b", {2}).ok());
  CHECK(Holds(*store, "1-13-20", 13, 20));
}

TEST_CASE("a page set holds what a plain set does") {
  std::uint32_t random = 7;
  const auto below = [&](std::uint32_t n) {
    return (random = random * 1664525 + 1013904223) / 65536 % n;
  };
  for (int round = 0; round < 300; ++round) {
    PageSet pages;
    std::set<PageNumber> plain;
    for (int i = 0; i < 30; ++i) {
      const PageNumber first = below(60);
      const PageNumber last = first + below(12) - (first > 0 ? 1 : 0);
      if (below(6) == 0) {
        pages.CutAfter(last);
        plain.erase(plain.upper_bound(last), plain.end());
      } else {
        pages.Add(first, last);
        for (PageNumber n = first; first > 0 && n <= last; ++n) plain.insert(n);
      }
      REQUIRE(pages.size() == plain.size());
      PageNumber end = 0;
      for (const auto& [from, to] : pages.ranges()) {
        REQUIRE((end == 0 || from > end + 1));
        end = to;
      }
      for (PageNumber n = 1; n < 80; ++n) REQUIRE(pages.Contains(n) == plain.contains(n));
    }
  }
}

}  // namespace
}  // namespace echofs
