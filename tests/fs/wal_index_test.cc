#include "fs/wal_index.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "fs/wal_apply.h"
#include "tests/catch.h"
#include "tests/fs/plain_mount.h"
#include "tests/fs/primary_database.h"
#include "tests/fs/sqlite_process.h"
#include "tests/replication/temp_directory.h"

namespace echofs::fs {
namespace {

std::vector<std::uint8_t> ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

constexpr std::uint32_t kPageSize = 512;
constexpr std::uint32_t kMaxFrames = 9000;

// A WAL by SQLite with more than kMaxFrames frames over a few hundred pages, each a transaction.
class SqliteWal {
 public:
  SqliteWal() : primary_(directory_ / "db", "PRAGMA page_size=512; PRAGMA journal_mode=WAL") {
    primary_.Exec("PRAGMA wal_autocheckpoint=0; CREATE TABLE t(id INTEGER PRIMARY KEY, x, y)");
    primary_.Exec(
        "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<300) "
        "INSERT INTO t SELECT i, 0, hex(zeroblob(180)) FROM c");
    std::mt19937 random(7);
    for (std::uint32_t i = 0; i < kMaxFrames; ++i) {
      primary_.Exec("UPDATE t SET x=x+1 WHERE id=" + std::to_string(1 + random() % 300));
    }
  }

  // Copies database and WAL, cut after `frames`, into a new place; returns the copy's database.
  std::string Copy(std::uint32_t frames) {
    const std::string to = directory_ / ("copy" + std::to_string(++copies_));
    std::filesystem::copy_file(directory_ / "db", to);
    std::filesystem::copy_file(directory_ / "db-wal", to + "-wal");
    std::filesystem::resize_file(to + "-wal", sqlite::FrameOffset(frames + 1, kPageSize));
    return to;
  }
  // The -shm that SQLite's recovery makes of it.
  std::vector<std::uint8_t> RecoveredShm(std::uint32_t frames) {
    const std::string path = Copy(frames);
    SqliteProcess process(path);
    REQUIRE(process.Run("SELECT count(*) FROM t") == "300");
    return ReadFile(path + "-shm");
  }
  std::vector<PageNumber> Pages(std::uint32_t frames) {
    const std::vector<std::uint8_t> wal = ReadFile(directory_ / "db-wal");
    std::vector<PageNumber> pages;
    for (std::uint32_t f = 1; f <= frames; ++f) {
      pages.push_back(LoadBe32(wal.data() + sqlite::FrameOffset(f, kPageSize)));
    }
    return pages;
  }

 private:
  TempDirectory directory_;
  PrimaryDatabase primary_;
  int copies_ = 0;
};

std::vector<std::uint8_t> Tables(const std::vector<std::uint8_t>& shm) {
  return {shm.begin() + WalIndex::kTablesOffset, shm.end()};
}

std::vector<std::uint8_t> Tables(const WalIndex& index) {
  std::vector<std::uint8_t> bytes(index.size());
  CHECK(index.Read(0, bytes) == bytes.size());
  return Tables(bytes);
}

}  // namespace

TEST_CASE("the tables are those of SQLite's recovery, byte for byte, across region borders (A2)") {
  SqliteWal wal;
  std::mt19937 random(1);
  for (const std::uint32_t frames : {700u, 4061u, 4062u, 4063u, 8157u, 8158u, 8159u, kMaxFrames}) {
    const std::vector<PageNumber> pages = wal.Pages(frames);
    WalIndex index;
    for (std::size_t i = 0; i < pages.size();) {
      const std::size_t n = std::min<std::size_t>(1 + random() % 900, pages.size() - i);
      index.Append(std::span(pages).subspan(i, n));
      i += n;
    }
    INFO(frames);
    CHECK(Tables(index) == Tables(wal.RecoveredShm(frames)));
  }
}

TEST_CASE("the ranges that Append returns cover every change (A2)") {
  SqliteWal wal;
  const std::vector<PageNumber> pages = wal.Pages(kMaxFrames);
  WalIndex index;
  std::vector<std::uint8_t> kernel(WalIndex::kRegionSize);
  std::mt19937 random(2);
  for (std::size_t i = 0; i < pages.size();) {
    const std::size_t n = std::min<std::size_t>(1 + random() % 40, pages.size() - i);
    const auto ranges = index.Append(std::span(pages).subspan(i, n));
    i += n;
    kernel.resize(index.size());
    for (const WalIndex::Range& range : ranges) {
      CHECK((range.offset % 8 == 0 && range.size % 8 == 0));
      index.Read(range.offset, MutableByteView(kernel).subspan(range.offset, range.size));
    }
  }
  CHECK(Tables(kernel) == Tables(index));
}

TEST_CASE("joining a WAL of SQLite's gives the header of SQLite's recovery") {
  SqliteWal wal;
  for (const std::uint32_t frames : {700u, 4063u}) {
    const std::string path = wal.Copy(frames);
    PlainPageCache cache;
    PlainReplicaFiles files(path, &cache);
    WalApplyFiles f;
    f.main = *files.OpenBacking(sqlite::FileRole::kMain, false);
    f.wal = *files.OpenBacking(sqlite::FileRole::kWal, false);
    f.shm = *files.OpenBacking(sqlite::FileRole::kShm, true);
    f.main_inode = files.Inode(sqlite::FileRole::kMain);
    f.wal_inode = files.Inode(sqlite::FileRole::kWal);
    f.shm_inode = files.Inode(sqlite::FileRole::kShm);
    f.wal_lock = *files.OpenLock(sqlite::FileRole::kWal);
    f.shm_lock = *files.OpenLock(sqlite::FileRole::kShm);
    WalApplyOptions options;
    options.page_size = kPageSize;
    options.page_count = 1;
    int pid = 0;
    auto apply = WalApply::Start(std::move(f), &cache, options, &pid);
    REQUIRE(apply.ok());
    REQUIRE((*apply)->Activate().ok());
    const std::vector<std::uint8_t> ours = ReadFile(path + "-shm");
    const std::vector<std::uint8_t> theirs = wal.RecoveredShm(frames);
    REQUIRE(ours.size() == theirs.size());
    CHECK(Tables(ours) == Tables(theirs));
    // Both copies: version, flags, page size, last frame, page count, checksum, salts. The change
    // counter at 8 may differ, and with it the checksum at 40.
    for (const std::size_t copy : {0, 48}) {
      CHECK(std::memcmp(ours.data() + copy, theirs.data() + copy, 8) == 0);
      CHECK(std::memcmp(ours.data() + copy + 12, theirs.data() + copy + 12, 28) == 0);
    }
    // And the checksum is what SQLite makes of a header with that counter.
    WalIndexHeader header = (*apply)->index()->header();
    std::memcpy(&header.change_counter, theirs.data() + 8, 4);
    CHECK(std::memcmp(WalIndex::EncodeHeader(header).data(), theirs.data(), 48) == 0);
  }
}

TEST_CASE("FindFrame gives the newest frame within the limit") {
  WalIndex index;
  std::vector<PageNumber> pages;
  std::mt19937 random(3);
  for (int i = 0; i < 9000; ++i) pages.push_back(1 + random() % 700);
  index.Append(pages);
  WalIndexHeader header;
  header.page_size = kPageSize;
  header.max_frame = 9000;
  index.Publish(header);
  for (int i = 0; i < 3000; ++i) {
    const PageNumber page = 1 + random() % 750;
    const std::uint32_t limit = 1 + random() % 9000;
    std::uint32_t expected = 0;
    for (std::uint32_t f = limit; f > 0 && expected == 0; --f) {
      if (pages[f - 1] == page) expected = f;
    }
    REQUIRE(index.FindFrame(page, limit) == expected);
  }
}

TEST_CASE("CleanTail leaves the tables as if the abandoned frames had never been there") {
  std::mt19937 random(4);
  for (const std::uint32_t kept : {0u, 10u, 4000u, 4062u, 4100u}) {
    WalIndex dirty;
    WalIndex clean;
    std::vector<PageNumber> pages;
    for (std::uint32_t i = 0; i < 5000; ++i) pages.push_back(1 + random() % 500);
    dirty.Append(std::span(pages).first(kept));
    clean.Append(std::span(pages).first(kept));
    WalIndexHeader header;
    header.max_frame = kept;
    dirty.Publish(header);
    dirty.Append(std::span(pages).subspan(kept));
    dirty.CleanTail();
    std::vector<PageNumber> other(5000 - kept, 77);
    dirty.Append(other);
    clean.Append(other);
    INFO(kept);
    CHECK(Tables(dirty) == Tables(clean));
  }
}

TEST_CASE("a late writeback changes read marks and nothing else (A2)") {
  WalIndex index;
  const std::vector<PageNumber> pages = {5, 6, 7};
  index.Append(pages);
  WalIndexHeader header;
  header.page_size = 65536;
  header.max_frame = 3;
  index.Publish(header);
  std::vector<std::uint8_t> before(4096);
  index.Read(0, before);
  std::vector<std::uint8_t> page(4096, 0xee);
  index.MergeWrite(0, page);
  index.MergeWrite(4096, page);
  std::vector<std::uint8_t> after(index.size());
  index.Read(0, after);
  std::copy(page.begin() + 100, page.begin() + 120, before.begin() + 100);
  CHECK(std::memcmp(before.data(), after.data(), before.size()) == 0);
  CHECK(after[4096] == 0);
  CHECK(index.ReadMark(2) == 0xeeeeeeee);
}

}  // namespace echofs::fs
