#include "replication/change_log.h"

#include <filesystem>
#include <string>

#include "tests/catch.h"
#include "tests/replication/log_test_util.h"
#include "tests/replication/temp_directory.h"

namespace echofs {
namespace {

constexpr char kDb[] = "dir/app.db";

std::string SegmentPath(const TempDirectory& dir, std::uint64_t first) {
  char name[32];
  std::snprintf(name, sizeof(name), "log/%016llx.seg", static_cast<unsigned long long>(first));
  return dir / name;
}

}  // namespace

TEST_CASE("a new log is empty and its first entry gets index 1") {
  TempDirectory dir;
  auto log = OpenLog(dir / "log");
  CHECK(log->first_index().value == 1);
  CHECK(log->last_index().value == 0);
  CHECK(log->Position(kDb).status().code() == absl::StatusCode::kNotFound);
  CHECK_FALSE(log->Read({1})->Next()->has_value());
  REQUIRE(log->Append(TestOpenTerm(3), {}).value().value == 1);
  CHECK(log->last_term().value == 3);
}

TEST_CASE("entries of any size come back as they were appended, also after reopening (L2)") {
  TempDirectory dir;
  const std::size_t sizes[] = {0, 1, 5000, 65536, 262144 - 100, 262144, 262145, 1000000};
  {
    auto log = OpenLog(dir / "log");
    std::uint64_t txid = 0;
    for (const std::size_t size : sizes) {
      ++txid;
      auto writer = log->Begin(TestChange(kDb, txid));
      REQUIRE(writer.ok());
      // In pieces, some of them larger than the buffer.
      const auto payload = TestPayload(txid, size);
      const ByteView view(payload);
      for (std::size_t at = 0; at < size; at += 300000) {
        REQUIRE((*writer)->Write(view.subspan(at, std::min<std::size_t>(300000, size - at))).ok());
      }
      REQUIRE((*writer)->Commit(TestChange(kDb, txid)).value().value == txid);
    }
    CHECK(CheckLog(*log, {1}) == std::size(sizes));
    CHECK(CheckLog(*log, {5}) == std::size(sizes) - 4);
  }
  auto log = OpenLog(dir / "log");
  CHECK(CheckLog(*log, {1}) == std::size(sizes));
  const LogEntry last = TestChange(kDb, std::size(sizes));
  const auto position = log->Position(kDb);
  REQUIRE(position.ok());
  CHECK(position->txid == last.txid);
  CHECK(position->digest == last.digest_after);
  CHECK(position->attributes == last.attributes);
  CHECK(position->wal == last.wal);
  CHECK(position->page_count == last.page_count);
  CHECK(position->index == log->last_index());
  const auto entry = log->Read({2})->Next();
  REQUIRE(entry.ok());
  CHECK((*entry)->timestamp_ms == TestChange(kDb, 2).timestamp_ms);
}

TEST_CASE("the raw record of an entry is the same after it went through another log (L3)") {
  TempDirectory dir;
  auto log = OpenLog(dir / "a");
  AppendChanges(*log, kDb, 1, 2, 700);
  auto reader = log->Read({2});
  const auto entry = reader->Next();
  REQUIRE((entry.ok() && entry->has_value()));
  const auto record = ReadAll(*reader->Record());
  REQUIRE(record.ok());
  CHECK(record->size() == (*entry)->RecordSize());
  const auto decoded = DecodeEntryHeader(*record);
  REQUIRE(decoded.ok());

  auto copy = OpenLog(dir / "b");
  AppendChanges(*copy, kDb, 1, 1, 3);
  const std::size_t start = kRecordHeaderSize + decoded->database.size();
  REQUIRE(copy->Append(*decoded, ByteView(*record).subspan(start, decoded->payload_size)).ok());
  auto copy_reader = copy->Read({2});
  REQUIRE(copy_reader->Next().ok());
  CHECK(*ReadAll(*copy_reader->Record()) == *record);
}

TEST_CASE("an append that would leave a gap is refused and leaves the log as it was (L2)") {
  TempDirectory dir;
  auto log = OpenLog(dir / "log");
  REQUIRE(log->Append(TestOpenTerm(2), {}).ok());
  AppendChanges(*log, kDb, 1, 2, 10, 2);
  const auto refused = [&](LogEntry entry, const char* why) {
    const auto result = log->Append(entry, {});
    INFO(result.status().ToString());
    CHECK(result.status().code() == absl::StatusCode::kFailedPrecondition);
    CheckSays(result.status(), why);
  };
  refused(TestChange(kDb, 4, 2), "TXID");
  refused(TestChange(kDb, 2, 2), "TXID");
  refused(TestChange(kDb, 3, 1), "term");
  refused(TestOpenTerm(2), "term");
  refused(TestDrop("other.db", 1, 2), "does not exist");
  LogEntry entry = TestChange(kDb, 3, 2);
  entry.index = {5};
  refused(entry, "index");
  entry = TestChange(kDb, 3, 2);
  entry.digest_before ^= 1;
  refused(entry, "digest");
  entry = TestChange("new.db", 1, 2);
  entry.digest_before = 1;
  refused(entry, "digest");
  CHECK(log->Append(TestChange("../evil", 1, 2), {}).status().code() ==
        absl::StatusCode::kInvalidArgument);
  AppendChanges(*log, kDb, 3, 3, 10, 2);
  CHECK(CheckLog(*log, {1}) == 4);
}

TEST_CASE("a dropped database made again continues its TXIDs from digest 0") {
  TempDirectory dir;
  auto log = OpenLog(dir / "log");
  AppendChanges(*log, kDb, 1, 2, 10);
  REQUIRE(log->Append(TestDrop(kDb, 3), {}).ok());
  CHECK(log->Position(kDb)->dropped);
  CHECK_FALSE(log->Append(TestDrop(kDb, 4), {}).ok());
  LogEntry again = TestChange(kDb, 4);
  again.digest_before = 0;
  REQUIRE(log->Append(again, {}).ok());
  CHECK_FALSE(log->Position(kDb)->dropped);
  log = OpenLog(dir / "log");
  CHECK(log->Position(kDb)->txid.value == 4);
  CHECK_FALSE(log->Position(kDb)->dropped);
}

TEST_CASE("a writer that is given up leaves nothing behind") {
  TempDirectory dir;
  auto log = OpenLog(dir / "log");
  AppendChanges(*log, kDb, 1, 1, 100);
  const auto size = std::filesystem::file_size(SegmentPath(dir, 1));
  {
    auto writer = log->Begin(TestChange(kDb, 2));
    REQUIRE(writer.ok());
    REQUIRE((*writer)->Write(TestPayload(2, 700000)).ok());
  }
  CHECK(std::filesystem::file_size(SegmentPath(dir, 1)) == size);
  AppendChanges(*log, kDb, 2, 2, 100);
  CHECK(CheckLog(*log, {1}) == 2);
}

TEST_CASE("segments follow each other and reading crosses them") {
  TempDirectory dir;
  ChangeLogOptions options;
  options.segment_size = 2000;
  {
    auto log = OpenLog(dir / "log", options);
    AppendChanges(*log, kDb, 1, 50, 300);
    AppendChanges(*log, "b", 1, 50, 300);
    CHECK(CheckLog(*log, {1}) == 100);
  }
  auto log = OpenLog(dir / "log", options);
  CHECK(log->Positions().size() == 2);
  for (std::uint64_t from = 1; from <= 101; ++from) CHECK(CheckLog(*log, {from}) == 101 - from);
  CHECK(log->Read({102})->Next().status().code() == absl::StatusCode::kOutOfRange);
  std::size_t segments = 0;
  for (const auto& file : std::filesystem::directory_iterator(dir / "log")) {
    segments += file.path().extension() == ".seg";
  }
  CHECK(segments > 10);
  CHECK(log->size_bytes() > 100 * 300);
}

TEST_CASE("seeking into a large segment finds every entry, known and unknown places alike") {
  TempDirectory dir;
  auto log = OpenLog(dir / "log");
  AppendChanges(*log, kDb, 1, 2000, 700);
  for (int round = 0; round < 2; ++round) {
    for (std::uint64_t i = 1; i <= 2000; i += 37) {
      const auto entry = log->Read({i})->Next();
      REQUIRE(entry.ok());
      CHECK((*entry)->index.value == i);
    }
    log = OpenLog(dir / "log");
  }
}

TEST_CASE("terms are known for every entry and for the base") {
  TempDirectory dir;
  ChangeLogOptions options;
  options.segment_size = 1500;
  auto log = OpenLog(dir / "log", options);
  std::vector<std::uint64_t> terms = {0};
  std::uint64_t txid = 0;
  for (std::uint64_t term = 1; term <= 5; ++term) {
    REQUIRE(log->Append(TestOpenTerm(term * 10), {}).ok());
    terms.push_back(term * 10);
    for (int i = 0; i < 7; ++i) {
      ++txid;
      AppendChanges(*log, kDb, txid, txid, 100, term * 10);
      terms.push_back(term * 10);
    }
  }
  for (int round = 0; round < 2; ++round) {
    for (std::uint64_t i = 0; i < terms.size(); ++i) {
      const auto term = log->TermAt({i});
      REQUIRE(term.ok());
      CHECK(term->value == terms[i]);
    }
    CHECK(log->TermAt({terms.size()}).status().code() == absl::StatusCode::kOutOfRange);
    log = OpenLog(dir / "log", options);
  }
}

TEST_CASE("a reader at the end sees what is appended later, and nothing before it is committed") {
  TempDirectory dir;
  auto log = OpenLog(dir / "log");
  auto reader = log->Read({1});
  CHECK_FALSE(reader->Next()->has_value());
  auto writer = log->Begin(TestChange(kDb, 1));
  REQUIRE((*writer)->Write(TestPayload(1, 500000)).ok());
  CHECK_FALSE(reader->Next()->has_value());
  REQUIRE((*writer)->Commit(TestChange(kDb, 1)).ok());
  CHECK((*reader->Next())->index.value == 1);
  CHECK(*ReadAll(*reader->Payload()) == TestPayload(1, 500000));
  CHECK_FALSE(reader->Next()->has_value());
  AppendChanges(*log, kDb, 2, 3, 10);
  CHECK((*reader->Next())->index.value == 2);
  auto stale = reader->Payload();
  CHECK((*reader->Next())->index.value == 3);
  CHECK_FALSE(ReadAll(*stale).ok());
}

TEST_CASE("truncation takes entries away for good, within a segment and across segments (R5)") {
  for (const std::uint64_t keep : {0, 1, 7, 12, 13, 29, 30}) {
    TempDirectory dir;
    ChangeLogOptions options;
    options.segment_size = 1500;
    auto log = OpenLog(dir / "log", options);
    AppendChanges(*log, kDb, 1, 30, 200);
    REQUIRE(log->Sync({30}).ok());
    REQUIRE(log->TruncateAfter({keep}).ok());
    CHECK(log->last_index().value == keep);
    CHECK(log->synced_index().value == keep);
    CHECK(CheckLog(*log, {1}) == keep);
    CHECK(log->Position(kDb).ok() == (keep != 0));
    CHECK(log->TruncateAfter({keep + 1}).code() == absl::StatusCode::kOutOfRange);
    log = OpenLog(dir / "log", options);
    CHECK(log->last_index().value == keep);
    AppendChanges(*log, kDb, keep + 1, keep + 20, 100, 2);
    CHECK(CheckLog(*log, {1}) == keep + 20);
    log = OpenLog(dir / "log", options);
    CHECK(CheckLog(*log, {1}) == keep + 20);
  }
}

TEST_CASE("a reader notices that what it has read was truncated") {
  TempDirectory dir;
  auto log = OpenLog(dir / "log");
  AppendChanges(*log, kDb, 1, 20, 200);
  auto behind = log->Read({3});
  REQUIRE(behind->Next().ok());  // has read 3, and has the rest in its buffer
  auto ahead = log->Read({15});
  REQUIRE(ahead->Next().ok());
  auto ahead_payload = ahead->Payload();
  auto at_end = log->Read({21});
  REQUIRE(at_end->Next().ok());
  REQUIRE(log->TruncateAfter({5}).ok());
  CHECK(ReadAll(*ahead_payload).status().code() == absl::StatusCode::kOutOfRange);
  AppendChanges(*log, kDb, 6, 25, 150, 2);
  CHECK(ahead->Next().status().code() == absl::StatusCode::kOutOfRange);
  CHECK(at_end->Next().status().code() == absl::StatusCode::kOutOfRange);
  for (std::uint64_t i = 4; i <= 25; ++i) {
    const auto entry = behind->Next();
    REQUIRE((entry.ok() && entry->has_value()));
    CHECK((*entry)->index.value == i);
    CHECK((*entry)->term.value == (i <= 5 ? 1 : 2));
  }
}

TEST_CASE("a reset log starts after its base with the given databases") {
  TempDirectory dir;
  auto log = OpenLog(dir / "log");
  AppendChanges(*log, kDb, 1, 10, 200);
  REQUIRE(log->Sync({10}).ok());
  auto reader = log->Read({4});
  REQUIRE(reader->Next().ok());
  auto other = OpenLog(dir / "other");
  AppendChanges(*other, kDb, 1, 5, 200);
  AppendChanges(*other, "b", 1, 2, 200);
  REQUIRE(other->Append(TestDrop("b", 3), {}).ok());
  for (const std::uint64_t base : {100, 3, 0}) {
    REQUIRE(log->Reset({base}, {9}, other->Positions()).ok());
    for (int round = 0; round < 2; ++round) {
      CHECK(log->first_index().value == base + 1);
      CHECK(log->last_index().value == base);
      CHECK(log->synced_index().value == base);
      CHECK(log->TermAt({base})->value == 9);
      CHECK(log->Positions() == other->Positions());
      log = round == 0 ? OpenLog(dir / "log") : std::move(log);
    }
    REQUIRE(log->Append(TestChange(kDb, 6, 9), TestPayload(6, 100)).value().value == base + 1);
    CHECK(CheckLog(*log, {base + 1}) == 1);
  }
}

TEST_CASE("a reader of a log that was reset must start again") {
  TempDirectory dir;
  auto log = OpenLog(dir / "log");
  AppendChanges(*log, kDb, 1, 10, 200);
  auto reader = log->Read({4});
  REQUIRE(reader->Next().ok());
  REQUIRE(log->Reset({4}, {1}, {}).ok());
  CHECK(reader->Next().status().code() == absl::StatusCode::kOutOfRange);
}

TEST_CASE("retention removes old segments by size and by age, but nothing that is needed (L4)") {
  TempDirectory dir;
  absl::Time now = absl::FromUnixSeconds(1000000);
  ChangeLogOptions options;
  options.segment_size = 2000;
  options.retention_size = 5000;
  options.retention_age = absl::Hours(1);
  options.now = [&now] { return now; };
  auto log = OpenLog(dir / "log", options);
  AppendChanges(*log, kDb, 1, 50, 300);
  auto reader = log->Read({1});
  REQUIRE(reader->Next().ok());

  REQUIRE(log->Retain({10}).ok());
  CHECK(log->first_index().value <= 10);
  CHECK(log->first_index().value > 1);
  CHECK(reader->Next().status().code() == absl::StatusCode::kOutOfRange);
  CHECK(log->Read({1})->Next().status().code() == absl::StatusCode::kOutOfRange);
  REQUIRE(log->Retain({51}).ok());
  const auto by_size = log->first_index();
  CHECK(by_size.value > 30);
  CHECK(by_size.value < 45);
  CHECK(CheckLog(*log, by_size) == 51 - by_size.value);

  log = OpenLog(dir / "log", options);
  CHECK(log->first_index() == by_size);
  CHECK(CheckLog(*log, by_size) == 51 - by_size.value);
  now += absl::Minutes(61);
  REQUIRE(log->Retain({51}).ok());
  CHECK(log->first_index() > by_size);
  CHECK(log->first_index().value <= 51);
  log = OpenLog(dir / "log", options);
  CHECK(log->Position(kDb)->txid.value == 50);
  AppendChanges(*log, kDb, 51, 60, 300);
}

}  // namespace echofs
