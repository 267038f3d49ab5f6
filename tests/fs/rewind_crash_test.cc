// A crash at any step of taking entries out of a log (replication/log_rewind.h): they are in the log or in the store,
// and no database is believed to be where it is not.
#include <filesystem>

#include "fs/database_set.h"
#include "replication/log_rewind.h"
#include "tests/catch.h"
#include "tests/replication/faulty_storage.h"
#include "tests/replication/log_test_util.h"
#include "tests/replication/temp_directory.h"

namespace echofs::fs {
namespace {

constexpr char kDb[] = "x.db";
constexpr std::uint64_t kCommon = 10;
constexpr std::uint64_t kLast = 13;

// A replica's disk, whose database stands at the log's last entry.
struct Disk {
  Disk() {
    Open();
    for (std::uint64_t i = 1; i <= kLast; ++i) {
      REQUIRE(log->Append(TestChange(kDb, i), TestPayload(i, 700)).ok());
    }
    REQUIRE(log->Sync({kLast}).ok());
    REQUIRE(storage.Open(directory / "files/x.db", OpenOptions{.create = true}).ok());
    const auto positions = AppliedPositions::Open(&storage, directory / "applied");
    REQUIRE(positions.ok());
    REQUIRE((*positions)->Set(kDb, {{kLast}, {kLast}, {kLast}, {}}).ok());
    REQUIRE((*positions)->Sync().ok());
    REQUIRE(storage.SyncDirectory(directory.path()).ok());
    REQUIRE(storage.SyncDirectory(directory / "files").ok());
    Close();
    Open();
  }

  void Open() {
    REQUIRE(storage.MakeDirectories(directory / "files").ok());
    ChangeLogOptions log_options;
    log_options.storage = &storage;
    log_options.segment_size = 1500;
    log = OpenLog(directory / "log", log_options);
    auto opened_store = OrphanStore::Open(&storage, directory / "orphans");
    REQUIRE(opened_store.ok());
    store = *std::move(opened_store);
    DatabaseSetOptions options;
    options.storage = &storage;
    options.log = log.get();
    options.root = directory / "files";
    options.positions_file = directory / "applied";
    options.temporary_directory = directory / "tmp";
    options.read_only = true;
    options.was_replica = true;
    auto opened = DatabaseSet::Open(options);
    INFO(opened.status().ToString());
    REQUIRE(opened.ok());
    databases = *std::move(opened);
  }
  void Close() {
    databases.reset();
    store.reset();
    log.reset();
  }

  absl::Status Rewind() {
    const CommonPoint common{true, {kCommon}, {1}};
    return RewindLog({log.get(), databases.get(), store.get(), "b", {2}}, common).status();
  }
  absl::Status Restart() {
    const LogState base{
        {kCommon + 1},
        {2},
        {},
    };
    const CommonPoint common{true, {kCommon}, {1}};
    return RestartLog({log.get(), databases.get(), store.get(), "b", {2}}, common, base, {})
        .status();
  }
  // Change sets that the store has of kCommon + 1 to kLast.
  std::uint64_t Kept() {
    std::uint64_t kept = 0;
    const auto list = store->List();
    REQUIRE(list.ok());
    for (const OrphanInfo& info : *list) {
      REQUIRE(info.damage.empty());
      REQUIRE(info.first == LogIndex{kCommon + 1});
      kept += info.change_sets;
    }
    return kept;
  }
  std::optional<AppliedPosition> Position() {
    const auto positions = AppliedPositions::Open(&storage, directory / "applied");
    REQUIRE(positions.ok());
    return (*positions)->Get(kDb);
  }

  TempDirectory directory;
  FaultyStorage storage;
  std::unique_ptr<ChangeLog> log;
  std::unique_ptr<OrphanStore> store;
  std::unique_ptr<DatabaseSet> databases;
};

// Fails, or loses power, at every step in turn; `finished` says whether the log is what it should become.
void CrashAtEveryStep(absl::Status (Disk::*cut)(), LogIndex end, bool power_loss) {
  int between = 0;
  for (std::uint64_t k = 1;; ++k) {
    Disk disk;
    REQUIRE(disk.Position().has_value());
    disk.storage.FailOperation(k, FaultyStorage::kChanges, EIO, true);
    const absl::Status done = (disk.*cut)();
    const bool failed = disk.storage.failed() > 0;
    INFO("step " << k << ": " << done.ToString());
    disk.Close();
    if (power_loss) {
      disk.storage.PowerLoss(k);
    } else {
      disk.storage.Heal();
    }
    const auto before_recovery = disk.Position();
    disk.Open();
    // L2 keeps a log that lost a part of its tail readable: it may have stopped anywhere in between.
    const bool whole = disk.log->last_index() == LogIndex{kLast} &&
                       disk.log->TermAt({kLast}).value_or(Term{}) == Term{1};
    if (!whole) {
      CHECK(disk.Kept() == kLast - kCommon);
      CHECK(!before_recovery.has_value());
      CHECK(!disk.Position().has_value());
      ++between;
    }
    if (!failed) {
      CHECK(done.ok());
      CHECK(disk.log->last_index() == end);
      CHECK(k > 8);
      CHECK(between > 1);
      return;
    }
    // The next contact does it again, and nothing is kept twice.
    if (disk.log->last_index() > LogIndex{kCommon} && disk.log->last_term() == Term{1}) {
      REQUIRE((disk.*cut)().ok());
    }
    CHECK(disk.log->last_index() == end);
    CHECK(disk.Kept() == kLast - kCommon);
    CHECK(!disk.Position().has_value());
  }
}

TEST_CASE("a crash at any step of a rewind loses no orphan and leaves no false position (D4, R5)") {
  CrashAtEveryStep(&Disk::Rewind, {kCommon}, GENERATE(true, false));
}

TEST_CASE("a crash at any step of starting a log anew loses no orphan (D4, R5)") {
  CrashAtEveryStep(&Disk::Restart, {kCommon + 1}, GENERATE(true, false));
}

}  // namespace
}  // namespace echofs::fs
