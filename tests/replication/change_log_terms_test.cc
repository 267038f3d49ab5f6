// What a log knows of its terms (L3, R5): through segments, truncation, reset, retention and restarts.
#include <xxhash.h>

#include "replication/bytes.h"
#include "tests/replication/log_test_util.h"
#include "tests/replication/temp_directory.h"

namespace echofs {
namespace {

constexpr char kDb[] = "a.db";

ChangeLogOptions SmallSegments() {
  ChangeLogOptions options;
  options.segment_size = 2000;
  options.retention_size = 0;
  options.retention_age = absl::ZeroDuration();
  return options;
}

// Terms 1, 2, ... of so many changes each, each opened by an entry of its own.
void AppendTerms(ChangeLog& log, std::uint64_t from, std::uint64_t to, std::uint64_t changes) {
  for (std::uint64_t term = from; term <= to; ++term) {
    REQUIRE(log.Append(TestOpenTerm(term), {}).ok());
    const std::uint64_t done = log.Position(kDb).ok() ? log.Position(kDb)->txid.value : 0;
    for (std::uint64_t i = 1; i <= changes; ++i) {
      REQUIRE(log.Append(TestChange(kDb, done + i, term), TestPayload(done + i, 300)).ok());
    }
  }
}

TEST_CASE("terms are known beyond retention, and after a restart (L3)") {
  TempDirectory dir;
  auto log = OpenLog(dir / "log", SmallSegments());
  AppendTerms(*log, 1, 10, 9);
  const TermHistory terms = log->Terms();
  REQUIRE(terms.starts().size() == 10);
  CHECK(terms.starts()[3] == TermStart{{4}, {31}});
  REQUIRE(log->Retain({101}).ok());
  REQUIRE(log->first_index() > LogIndex{80});
  CHECK(log->Terms() == terms);
  log = OpenLog(dir / "log", SmallSegments());
  CHECK(log->Terms() == terms);
}

TEST_CASE("truncation takes terms away, whatever segment it ends in") {
  for (const std::uint64_t end : {95, 91, 90, 42, 31, 30, 5, 0}) {
    TempDirectory dir;
    auto log = OpenLog(dir / "log", SmallSegments());
    AppendTerms(*log, 1, 10, 9);
    TermHistory terms = log->Terms();
    terms.CutAfter({end});
    REQUIRE(log->TruncateAfter({end}).ok());
    CHECK(log->Terms() == terms);
    log = OpenLog(dir / "log", SmallSegments());
    CHECK(log->Terms() == terms);
    AppendTerms(*log, 11, 11, 1);
    CHECK(log->Terms().starts().back() == TermStart{{11}, {end + 1}});
  }
}

TEST_CASE("a reset takes over the terms of the history that it continues") {
  TempDirectory dir;
  auto source = OpenLog(dir / "source");
  AppendTerms(*source, 1, 10, 9);
  auto log = OpenLog(dir / "log");
  AppendTerms(*log, 1, 3, 2);
  REQUIRE(log->Reset({95}, {10}, source->Positions(), source->Terms()).ok());
  CHECK(log->Terms() == source->Terms());
  log = OpenLog(dir / "log");
  CHECK(log->Terms() == source->Terms());
  // Terms that do not lead to the base are not believed.
  REQUIRE(log->Reset({95}, {11}, source->Positions(), source->Terms()).ok());
  CHECK(log->Terms() == TermHistory::FromBase({95}, {11}));
  REQUIRE(log->Reset({35}, {4}, {}, source->Terms()).ok());
  CHECK(log->Terms().starts().size() == 4);
}

// The segment as version 1 would have written it: without terms.
void MakeVersion1(const std::string& path) {
  const auto read = PosixStorage()->Open(path, {});
  REQUIRE(read.ok());
  std::vector<std::uint8_t> bytes((*read)->Size().value());
  REQUIRE((*read)->ReadAt(0, bytes).ok());
  const std::size_t terms = 16 * LoadBe32(bytes.data() + 12);
  const auto end = static_cast<std::ptrdiff_t>(64 + LoadBe64(bytes.data() + 56));
  bytes.erase(bytes.begin() + end, bytes.begin() + end + static_cast<std::ptrdiff_t>(terms));
  StoreBe32(bytes.data() + 8, 1);
  StoreBe32(bytes.data() + 12, 0);
  StoreBe64(bytes.data() + end, XXH3_64bits(bytes.data(), static_cast<std::size_t>(end)));
  const auto written = PosixStorage()->Open(path, OpenOptions{.truncate = true});
  REQUIRE((*written)->WriteAt(0, bytes).ok());
}

TEST_CASE("a log without terms still opens, and knows them from its last segment on") {
  TempDirectory dir;
  ChangeLogOptions options;
  auto log = OpenLog(dir / "log", options);
  AppendTerms(*log, 1, 5, 9);
  REQUIRE(log->Reset({48}, {5}, log->Positions(), log->Terms()).ok());
  AppendTerms(*log, 6, 7, 9);
  log.reset();
  MakeVersion1(dir / "log/0000000000000031.seg");
  log = OpenLog(dir / "log", options);
  CHECK(log->last_index() == LogIndex{68});
  const std::vector<TermStart> expected = {{{5}, {48}}, {{6}, {49}}, {{7}, {59}}};
  CHECK(log->Terms().starts() == expected);
  CHECK(!log->Terms().TermAt({47}).has_value());
}

}  // namespace
}  // namespace echofs
