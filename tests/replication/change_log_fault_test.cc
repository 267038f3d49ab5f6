// Looks for entries lost or damaged although they were synced, and for a log that does not open,
// after a power loss at every step of a run; and for a log that is unusable after a full disk or a
// failed sync.
#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "replication/change_log.h"
#include "tests/catch.h"
#include "tests/replication/faulty_storage.h"
#include "tests/replication/log_test_util.h"
#include "tests/replication/temp_directory.h"

namespace echofs {
namespace {

constexpr char kDb[] = "app.db";

ChangeLogOptions Options(Storage* storage) {
  ChangeLogOptions options;
  options.storage = storage;
  options.segment_size = 3000;
  options.retention_size = 4000;
  return options;
}

// A run of the log, and what a log that is opened after it may be.
struct Run {
  std::uint64_t synced = 0;     // at least these are there
  std::uint64_t written = 0;    // and at most these
  std::uint64_t first_max = 1;  // the first one that can be read is not after this
  bool cut_done = false;        // no entry after 6 is from term 1 any more
  bool reset = false;           // the log may have base 500
  bool reset_done = false;      // and has
};

// Terms: 1 before the truncation, 2 after it; TXID = index, so that a log is contiguous if it
// opens.
bool AppendTo(ChangeLog& log, std::uint64_t count, std::uint64_t term, Run* run) {
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t txid = log.last_index().value + 1;
    const std::size_t size = txid % 7 == 0 ? 300000 : txid * 37 % 900;
    run->written = std::max(run->written, txid);
    if (!log.Append(TestChange(kDb, txid, term), TestPayload(txid, size)).ok()) return false;
  }
  return true;
}

bool SyncAll(ChangeLog& log, Run* run) {
  const LogIndex last = log.last_index();
  if (!log.Sync(last).ok()) return false;
  run->synced = last.value;
  return true;
}

// Everything that a log does, until something fails.
bool Play(const std::string& directory, FaultyStorage* storage, Run* run) {
  auto opened = ChangeLog::Open(directory, Options(storage));
  if (!opened.ok()) return false;
  ChangeLog& log = **opened;
  if (!AppendTo(log, 3, 1, run) || !SyncAll(log, run)) return false;
  if (!AppendTo(log, 9, 1, run) || !SyncAll(log, run)) return false;
  if (!AppendTo(log, 4, 1, run)) return false;
  // The watermark is on disk now, and must not be there when the entries that it tells of are gone.
  storage->WriteBack();
  // Across segments.
  run->synced = 6;
  if (!log.TruncateAfter({6}).ok()) return false;
  run->written = 6;
  run->cut_done = true;
  if (!AppendTo(log, 12, 2, run) || !SyncAll(log, run)) return false;
  run->first_max = log.last_index().value - 1;
  if (!log.Retain({run->first_max}).ok()) return false;
  if (!AppendTo(log, 2, 2, run)) return false;
  storage->WriteBack();
  run->reset = true;
  DatabasePosition position;
  position.name = kDb;
  position.txid = {500};
  position.digest = TestDigest(500);
  if (!log.Reset({500}, {3}, {position}).ok()) return false;
  run->reset_done = true;
  run->synced = run->written = 500;
  run->first_max = 501;
  return AppendTo(log, 2, 3, run) && SyncAll(log, run) && AppendTo(log, 1, 3, run);
}

void CheckAfterwards(const std::string& directory, FaultyStorage* storage, const Run& run) {
  auto opened = ChangeLog::Open(directory, Options(storage));
  INFO(opened.status().ToString());
  REQUIRE(opened.ok());
  ChangeLog& log = **opened;
  const std::uint64_t last = log.last_index().value;
  if (run.reset && last >= 500) {
    CHECK(log.first_index().value == 501);
    CHECK(last >= 500);
    CHECK(log.Position(kDb)->txid.value == last);
  } else {
    REQUIRE_FALSE(run.reset_done);
    CHECK(log.first_index().value <= run.first_max);
    if (run.cut_done && last > 6) CHECK(log.TermAt({last})->value == 2);
  }
  if (!(run.reset && last == 500)) {
    CHECK(last >= run.synced);
    CHECK(last <= run.written);
  }
  CHECK(log.synced_index().value == last);
  CHECK(CheckLog(log, log.first_index()) == last + 1 - log.first_index().value);
  // It is usable.
  Run more;
  REQUIRE(AppendTo(log, 8, 9, &more));
  REQUIRE(SyncAll(log, &more));
  storage->PowerLoss();
  opened = ChangeLog::Open(directory, Options(storage));
  REQUIRE(opened.ok());
  CHECK((*opened)->last_index().value == last + 8);
  CHECK(CheckLog(**opened, (*opened)->first_index()) > 0);
}

void PowerLossAtEveryStep(std::optional<std::uint64_t> seed) {
  for (std::uint64_t step = 1;; ++step) {
    INFO("power loss at operation " << step << ", seed " << seed.value_or(0));
    TempDirectory dir;
    FaultyStorage storage;
    Run run;
    storage.FailOperation(step, FaultyStorage::kChanges, EIO, true);
    const bool all = Play(dir / "log", &storage, &run);
    storage.PowerLoss(seed.has_value() ? std::optional(*seed * 1000 + step) : std::nullopt);
    CheckAfterwards(dir / "log", &storage, run);
    if (all) {
      CHECK(step > 100);
      return;
    }
  }
}

}  // namespace

TEST_CASE("no synced entry is lost by a power loss at any operation (L2, D4)") {
  PowerLossAtEveryStep(std::nullopt);
}

TEST_CASE(
    "no synced entry is lost when a power loss leaves some of the unsynced sectors (L2, D4)") {
  for (std::uint64_t seed = 1; seed <= 4; ++seed) PowerLossAtEveryStep(seed);
}

TEST_CASE("a crash of the process alone at any operation loses no entry that was appended") {
  for (std::uint64_t step = 1;; ++step) {
    INFO("crash at operation " << step);
    TempDirectory dir;
    FaultyStorage storage;
    storage.FailOperation(step, FaultyStorage::kChanges, EIO, true);
    std::uint64_t appended = 0;
    bool all = false;
    {
      auto log = ChangeLog::Open(dir / "log", Options(&storage));
      Run run;
      all = log.ok() && AppendTo(**log, 10, 1, &run) && SyncAll(**log, &run) &&
            AppendTo(**log, 10, 1, &run);
      if (log.ok()) appended = (*log)->last_index().value;
    }
    storage.Heal();
    auto log = OpenLog(dir / "log", Options(&storage));
    CHECK(log->last_index().value == appended);
    CHECK(CheckLog(*log, {1}) == appended);
    if (all) {
      CHECK(appended == 20);
      break;
    }
  }
}

TEST_CASE("a full disk at any write leaves a usable log, and the error says so (L4)") {
  for (std::uint64_t step = 1;; ++step) {
    INFO("disk full at write " << step);
    TempDirectory dir;
    FaultyStorage storage;
    auto log = OpenLog(dir / "log", Options(&storage));
    storage.FailOperation(step, FaultyStorage::kWrite, ENOSPC);
    std::uint64_t refused = 0;
    for (std::uint64_t txid = 1; txid <= 30;) {
      const auto index =
          log->Append(TestChange(kDb, txid), TestPayload(txid, txid % 7 == 0 ? 600000 : 500));
      if (index.ok()) {
        REQUIRE(index->value == txid);
        ++txid;
      } else {
        REQUIRE(index.status().code() == absl::StatusCode::kResourceExhausted);
        REQUIRE(ErrnoOf(index.status()) == ENOSPC);
        REQUIRE(log->last_index().value == txid - 1);
        REQUIRE(++refused == 1);
        if (txid % 3 == 0) break;
      }
    }
    const std::uint64_t last = log->last_index().value;
    CHECK(CheckLog(*log, {1}) == last);
    REQUIRE(log->Sync({last}).ok());
    const std::uint64_t size = log->size_bytes();
    log = OpenLog(dir / "log", Options(&storage));
    CHECK(CheckLog(*log, {1}) == last);
    CHECK(log->size_bytes() == size);
    if (storage.failed() == 0) {
      CHECK(step > 30);
      break;
    }
  }
}

TEST_CASE("after a full disk and a cut that failed too, the next append cuts first") {
  TempDirectory dir;
  FaultyStorage storage;
  auto log = OpenLog(dir / "log", Options(&storage));
  AppendChanges(*log, kDb, 1, 2, 100);
  storage.FailOperation(1, FaultyStorage::kWrite | FaultyStorage::kTruncate, ENOSPC, true);
  CHECK_FALSE(log->Append(TestChange(kDb, 3), TestPayload(3, 1000)).ok());
  CHECK(log->Append(TestChange(kDb, 3), {}).status().code() ==
        absl::StatusCode::kResourceExhausted);
  storage.Heal();
  AppendChanges(*log, kDb, 3, 3, 10);
  const std::uint64_t size = log->size_bytes();
  CHECK(std::filesystem::file_size(dir / "log/0000000000000001.seg") == size);
  CHECK(CheckLog(*log, {1}) == 3);
}

TEST_CASE("after a failed sync nothing counts as synced until its bytes were written again") {
  TempDirectory dir;
  FaultyStorage storage;
  auto log = OpenLog(dir / "log", Options(&storage));
  AppendChanges(*log, kDb, 1, 2, 100);
  REQUIRE(log->Sync({1}).ok());
  CHECK(log->synced_index().value == 2);
  AppendChanges(*log, kDb, 3, 4, 100);
  storage.FailOperation(1, FaultyStorage::kSync, EIO);
  CHECK_FALSE(log->Sync({4}).ok());
  CHECK(log->synced_index().value == 2);
  // The second try writes: if it cannot, it fails although the sync itself would go well.
  storage.FailOperation(1, FaultyStorage::kWrite, EIO);
  CHECK_FALSE(log->Sync({4}).ok());
  CHECK(log->synced_index().value == 2);
  storage.Heal();
  CHECK(log->Sync({4}).ok());
  CHECK(log->synced_index().value == 4);
  CHECK(log->Sync({5}).code() == absl::StatusCode::kOutOfRange);
  CHECK(CheckLog(*log, {1}) == 4);
}

TEST_CASE("a truncation that fails half way stops the log until it is opened again") {
  TempDirectory dir;
  FaultyStorage storage;
  auto log = OpenLog(dir / "log", Options(&storage));
  AppendChanges(*log, kDb, 1, 30, 500);
  storage.FailOperation(1, FaultyStorage::kRemove, EIO);
  CHECK_FALSE(log->TruncateAfter({3}).ok());
  CheckSays(log->Append(TestChange(kDb, 4), {}).status(), "opened again");
  CheckSays(log->Retain({3}), "opened again");
  CHECK(CheckLog(*log, {1}) == 3);
  log = OpenLog(dir / "log", Options(&storage));
  CHECK(CheckLog(*log, {1}) == 30);
  REQUIRE(log->TruncateAfter({3}).ok());
  CHECK(CheckLog(*log, {1}) == 3);
}

TEST_CASE("retention that cannot remove a segment keeps it") {
  TempDirectory dir;
  FaultyStorage storage;
  auto log = OpenLog(dir / "log", Options(&storage));
  AppendChanges(*log, kDb, 1, 30, 500);
  storage.FailOperation(2, FaultyStorage::kRemove, EIO);
  CHECK_FALSE(log->Retain({30}).ok());
  const LogIndex first = log->first_index();
  CHECK(first.value > 1);
  CHECK(CheckLog(*log, first) == 31 - first.value);
  log = OpenLog(dir / "log", Options(&storage));
  CHECK(log->first_index() == first);
  REQUIRE(log->Retain({30}).ok());
  CHECK(log->first_index() > first);
}

}  // namespace echofs
