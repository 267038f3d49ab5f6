// Appenders, readers and syncers at once. Worth running under the tsan preset.
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "replication/change_log.h"
#include "tests/catch.h"
#include "tests/replication/faulty_storage.h"
#include "tests/replication/log_test_util.h"
#include "tests/replication/temp_directory.h"

namespace echofs {
namespace {

constexpr int kAppenders = 3;
constexpr std::uint64_t kPerAppender = 300;
constexpr std::uint64_t kAll = kAppenders * kPerAppender;

absl::Time Patience() { return absl::Now() + absl::Seconds(60); }

// Reads all entries as they come; counts in `wrong` what should not be.
void Follow(const ChangeLog& log, std::atomic<int>* wrong) {
  const auto reader = log.Read({1});
  for (std::uint64_t next = 1; next <= kAll; ++next) {
    log.WaitForIndex({next}, Patience());
    const auto entry = reader->Next();
    if (!entry.ok() || !entry->has_value() || (*entry)->index.value != next) {
      ++*wrong;
      return;
    }
    const auto payload = ReadAll(*reader->Payload());
    if (!payload.ok() || *payload != TestPayload((*entry)->txid.value, (*entry)->payload_size)) {
      ++*wrong;
    }
  }
}

}  // namespace

TEST_CASE("appenders, readers, syncers and retention do not disturb each other") {
  TempDirectory dir;
  ChangeLogOptions options;
  options.segment_size = 20000;
  auto log = OpenLog(dir / "log", options);
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kAppenders; ++i) {
    threads.emplace_back([&, name = "db" + std::to_string(i)] {
      for (std::uint64_t txid = 1; txid <= kPerAppender; ++txid) {
        const std::size_t size = txid % 50 == 0 ? 400000 : txid;
        const auto index = log->Append(TestChange(name, txid), TestPayload(txid, size));
        if (!index.ok()) ++wrong;
        if (index.ok() && txid % 20 == 0) {
          if (!log->Sync(*index).ok() || log->synced_index() < *index) ++wrong;
        }
      }
    });
  }
  for (int i = 0; i < 2; ++i) threads.emplace_back([&] { Follow(*log, &wrong); });
  threads.emplace_back([&] {
    for (std::uint64_t at = 0; at < kAll; at += 50) {
      log->WaitForIndex({at}, Patience());
      if (!log->Retain({1}).ok() || log->State().index.value < at) ++wrong;
    }
  });
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(log->last_index().value == kAll);
  log = OpenLog(dir / "log", options);
  CHECK(CheckLog(*log, {1}) == kAll);
}

TEST_CASE("readers at a log that is truncated again and again see only committed history (R5)") {
  TempDirectory dir;
  ChangeLogOptions options;
  options.segment_size = 5000;
  auto log = OpenLog(dir / "log", options);
  std::atomic<bool> stop = false;
  std::atomic<int> wrong = 0;
  std::atomic<std::uint64_t> entries = 0;
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&] {
      while (!stop) {
        const auto reader = log->Read({1});
        std::uint64_t last_term = 0;
        for (;;) {
          const auto entry = reader->Next();
          if (!entry.ok()) {
            if (entry.status().code() != absl::StatusCode::kOutOfRange) ++wrong;
            break;
          }
          if (!entry->has_value()) break;
          const auto payload = ReadAll(*reader->Payload());
          // Each round has its own term and payload size.
          if (payload.ok() && payload->size() != 100 + (*entry)->term.value) ++wrong;
          if (!payload.ok() && payload.status().code() != absl::StatusCode::kOutOfRange) ++wrong;
          if ((*entry)->term.value < last_term) ++wrong;
          last_term = (*entry)->term.value;
          ++entries;
        }
      }
    });
  }
  for (std::uint64_t round = 1; round <= 40; ++round) {
    const std::uint64_t last = log->last_index().value;
    AppendChanges(*log, "db", last + 1, last + 60, 100 + round, round);
    REQUIRE(log->TruncateAfter({log->last_index().value - round % 59}).ok());
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  CHECK(wrong == 0);
  CHECK(entries > 0);
}

TEST_CASE("concurrent syncs share one fdatasync") {
  TempDirectory dir;
  FaultyStorage storage;
  ChangeLogOptions options;
  options.storage = &storage;
  auto log = OpenLog(dir / "log", options);
  constexpr int kThreads = 8;
  AppendChanges(*log, "db", 1, kThreads, 10);
  storage.FailOperation(1000000, FaultyStorage::kSync, EIO);  // only counts
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int i = 1; i <= kThreads; ++i) {
    threads.emplace_back([&, i] {
      if (!log->Sync({static_cast<std::uint64_t>(i)}).ok()) ++wrong;
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(log->synced_index().value == kThreads);
  CHECK(storage.counted() == 1);
}

TEST_CASE("waiting for an entry ends when it is there, or at the deadline") {
  TempDirectory dir;
  auto log = OpenLog(dir / "log");
  CHECK(log->WaitForIndex({1}, absl::Now() + absl::Milliseconds(5)).value == 0);
  std::atomic<std::uint64_t> seen = 0;
  std::thread waiter([&] { seen = log->WaitForIndex({2}, Patience()).value; });
  AppendChanges(*log, "db", 1, 2, 10);
  waiter.join();
  CHECK(seen == 2);
}

}  // namespace echofs
