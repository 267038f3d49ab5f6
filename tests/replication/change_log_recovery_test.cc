// What Open does with what a crash or a bad disk left.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "replication/change_log.h"
#include "tests/catch.h"
#include "tests/replication/log_test_util.h"
#include "tests/replication/temp_directory.h"

namespace echofs {
namespace {

constexpr char kDb[] = "dir/app.db";

// Flips one byte of a file.
void Damage(const std::string& path, std::uint64_t offset) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(offset));
  const int byte = file.get();
  file.seekp(static_cast<std::streamoff>(offset));
  file.put(static_cast<char>(byte ^ 0x40));
  REQUIRE(file.good());
}

std::string SegmentPath(const TempDirectory& dir, std::uint64_t first) {
  char name[32];
  std::snprintf(name, sizeof(name), "log/%016llx.seg", static_cast<unsigned long long>(first));
  return dir / name;
}

}  // namespace

TEST_CASE("a torn tail that was never synced is cut at open (L2)") {
  TempDirectory dir;
  std::uint64_t size_before;
  {
    auto log = OpenLog(dir / "log");
    AppendChanges(*log, kDb, 1, 5, 200);
    REQUIRE(log->Sync({5}).ok());
    size_before = log->size_bytes();
    AppendChanges(*log, kDb, 6, 8, 200);
  }
  SECTION("its header is damaged") { Damage(SegmentPath(dir, 1), size_before + 40); }
  SECTION("its payload is damaged") { Damage(SegmentPath(dir, 1), size_before + 200); }
  SECTION("it is short") { std::filesystem::resize_file(SegmentPath(dir, 1), size_before + 100); }
  auto log = OpenLog(dir / "log");
  CHECK(log->last_index().value == 5);
  CHECK(std::filesystem::file_size(SegmentPath(dir, 1)) == size_before);
  AppendChanges(*log, kDb, 6, 9, 50);
  CHECK(CheckLog(*log, {1}) == 9);
}

TEST_CASE("damage to what was synced is an error that names segment and offset (L2)") {
  TempDirectory dir;
  std::uint64_t size_before;
  {
    auto log = OpenLog(dir / "log");
    AppendChanges(*log, kDb, 1, 5, 200);
    size_before = log->size_bytes();
    AppendChanges(*log, kDb, 6, 8, 200);
    REQUIRE(log->Sync({8}).ok());
  }
  SECTION("a header") { Damage(SegmentPath(dir, 1), size_before + 40); }
  SECTION("a payload") { Damage(SegmentPath(dir, 1), size_before + 200); }
  SECTION("cut in a record") {
    std::filesystem::resize_file(SegmentPath(dir, 1), size_before + 100);
  }
  SECTION("cut between records") { std::filesystem::resize_file(SegmentPath(dir, 1), size_before); }
  const auto log = ChangeLog::Open(dir / "log", {});
  CHECK(log.status().code() == absl::StatusCode::kDataLoss);
  CheckSays(log.status(), "0000000000000001.seg");
  CheckSays(log.status(), "offset " + std::to_string(size_before));
}

TEST_CASE("a damaged record in an old segment is found when it is read, and named (L2)") {
  TempDirectory dir;
  ChangeLogOptions options;
  options.segment_size = 2000;
  {
    auto log = OpenLog(dir / "log", options);
    AppendChanges(*log, kDb, 1, 30, 500);
  }
  std::uint64_t offset = 0;
  SECTION("header") {
    offset = 80 + 10;  // in the first record
    Damage(SegmentPath(dir, 1), offset);
    auto log = OpenLog(dir / "log", options);
    auto reader = log->Read({1});
    const auto entry = reader->Next();
    CHECK(entry.status().code() == absl::StatusCode::kDataLoss);
    CheckSays(entry.status(), "0000000000000001.seg");
    CheckSays(entry.status(), "offset 72");
  }
  SECTION("payload") {
    Damage(SegmentPath(dir, 1), 72 + kRecordHeaderSize + 100);
    auto log = OpenLog(dir / "log", options);
    auto reader = log->Read({1});
    REQUIRE(reader->Next().ok());
    for (int raw = 0; raw < 2; ++raw) {
      const auto bytes = ReadAll(raw == 1 ? *reader->Record() : *reader->Payload());
      CHECK(bytes.status().code() == absl::StatusCode::kDataLoss);
      CheckSays(bytes.status(), "0000000000000001.seg");
      CheckSays(bytes.status(), "offset 72");
    }
    REQUIRE(reader->Next().ok());
    CHECK(ReadAll(*reader->Payload()).ok());
  }
}

TEST_CASE("a missing, short or foreign segment is an error at open (L2)") {
  TempDirectory dir;
  ChangeLogOptions options;
  options.segment_size = 2000;
  std::vector<std::string> segments;
  {
    auto log = OpenLog(dir / "log", options);
    AppendChanges(*log, kDb, 1, 30, 500);
    REQUIRE(log->Sync({30}).ok());
    for (const auto& file : std::filesystem::directory_iterator(dir / "log")) {
      if (file.path().extension() == ".seg") segments.push_back(file.path().string());
    }
    std::sort(segments.begin(), segments.end());
    REQUIRE(segments.size() > 4);
  }
  std::string named;
  SECTION("missing in the middle") {
    std::filesystem::remove(segments[2]);
    named = segments[3];
  }
  SECTION("the last one is missing") {
    std::filesystem::remove(segments.back());
    named = segments[segments.size() - 2];
  }
  SECTION("all are missing") {
    for (const auto& segment : segments) std::filesystem::remove(segment);
  }
  SECTION("short") {
    named = segments[2];
    std::filesystem::resize_file(named, std::filesystem::file_size(named) - 1);
  }
  SECTION("under another name") {
    named = segments[3];
    std::filesystem::rename(segments[2], segments[2].substr(0, segments[2].size() - 5) + "f.seg");
  }
  SECTION("damaged start") {
    named = segments[2];
    Damage(named, 70);
  }
  const auto log = ChangeLog::Open(dir / "log", options);
  CHECK(log.status().code() == absl::StatusCode::kDataLoss);
  CheckSays(log.status(), named);
}

TEST_CASE("a segment of a newer format is refused with a clear message") {
  TempDirectory dir;
  { OpenLog(dir / "log"); }
  Damage(SegmentPath(dir, 1), 11);
  const auto log = ChangeLog::Open(dir / "log", {});
  CHECK(log.status().code() == absl::StatusCode::kFailedPrecondition);
  CheckSays(log.status(), "format version 66");
}

}  // namespace echofs
