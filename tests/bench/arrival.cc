// Workloads on a primary that wait for what a replica gets.
#include <sys/prctl.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <thread>
#include <utility>

#include "tests/bench/database.h"
#include "tests/bench/measure.h"
#include "tests/bench/received_log.h"
#include "tests/bench/workloads.h"

namespace echofs::bench {

namespace {

// When the transactions happened.
struct Commit {
  Clock::time_point called;
  Clock::time_point returned;
  Clock::time_point seen;
};

// Asks how many of the commits have arrived until all have.
void Poll(const std::function<std::size_t()>& arrived, std::vector<Commit>* commits) {
  // The pause leaves the processor to those who are measured.
  constexpr auto kPause = std::chrono::microseconds(20);
  prctl(PR_SET_TIMERSLACK, 1000);  // nanoseconds
  std::size_t seen = 0;
  const Clock::time_point start = Clock::now();
  while (seen < commits->size()) {
    const std::size_t count = std::min(arrived(), commits->size());
    const Clock::time_point now = Clock::now();
    while (seen < count) (*commits)[seen++].seen = now;
    if (now - start > std::chrono::minutes(5)) Die("the replica did not get all transactions");
    std::this_thread::sleep_for(kPause);
  }
}

// Commits at the asked rate while another thread polls, and prints after how long the commits arrived, under the
// name `what`.
void MeasureArrival(const Options& options, const char* what, Statement* insert,
                    const std::function<std::size_t()>& arrived) {
  const double wanted =
      options.count != 0 ? static_cast<double>(options.count) : options.rate * options.seconds;
  std::vector<Commit> commits(std::max<std::size_t>(1, static_cast<std::size_t>(wanted)));
  std::thread reader([&] { Poll(arrived, &commits); });
  prctl(PR_SET_TIMERSLACK, 1000);
  Ready(options);
  const Clock::time_point start = Clock::now();
  for (std::size_t i = 0; i < commits.size(); ++i) {
    std::this_thread::sleep_until(start + FromSeconds(static_cast<double>(i) / options.rate));
    commits[i].called = Clock::now();
    insert->Run();
    commits[i].returned = Clock::now();
  }
  const double seconds = Seconds(Clock::now() - start);
  reader.join();
  std::vector<float> from_return;
  std::vector<float> from_call;
  for (const Commit& commit : commits) {
    // It may arrive before COMMIT has returned.
    from_return.push_back(
        static_cast<float>(std::max(0.0, Microseconds(commit.seen - commit.returned))));
    from_call.push_back(static_cast<float>(Microseconds(commit.seen - commit.called)));
  }
  const std::string name = what;
  PrintResult(options, ResultText(options, commits.size(), seconds) + ", \"" + name +
                           "_us\": " + Percentiles(std::move(from_return)) + ", \"" + name +
                           "_from_call_us\": " + Percentiles(std::move(from_call)) + "}");
}

}  // namespace

void Catchup(const Options& options) {
  const auto database = OpenForWriting(options);
  const auto replica = OpenReplica(options);
  Statement insert(*database, kInsert);
  Statement last(*replica, "SELECT max(id) FROM t");
  const std::string result = Measure(options, [&] { insert.Run(); });
  const Clock::time_point start = Clock::now();
  const std::int64_t id = sqlite3_last_insert_rowid(database->get());
  const std::int64_t behind = id - last.Run();
  while (last.Run() < id) {
    if (Clock::now() - start > std::chrono::minutes(2))
      Die("the replica did not catch up in 2 minutes");
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  char text[80];
  std::snprintf(text, sizeof(text), R"(, "behind": %lld, "catchup_ms": %.2f})",
                static_cast<long long>(behind), Seconds(Clock::now() - start) * 1000);
  PrintResult(options, result + text);
}

void Visible(const Options& options) {
  const auto database = OpenForWriting(options);
  const auto replica = OpenReplica(options);
  Statement insert(*database, kInsert);
  insert.Run();
  const std::int64_t before = sqlite3_last_insert_rowid(database->get());
  Statement last(*replica, "SELECT max(id) FROM t");
  MeasureArrival(options, "visible", &insert, [&last, before] {
    return static_cast<std::size_t>(std::max<std::int64_t>(0, last.Run() - before));
  });
}

void Stream(const Options& options) {
  if (options.log.empty()) Die("stream needs --log");
  const auto database = OpenForWriting(options);
  const auto replica = OpenReplica(options);
  Statement insert(*database, kInsert);
  insert.Run();
  const std::int64_t id = sqlite3_last_insert_rowid(database->get());
  Statement last(*replica, "SELECT max(id) FROM t");
  while (last.Run() < id) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  // What is visible is in the log; from here on every commit is the database's next entry.
  ReceivedLog log(options.log, std::filesystem::path(options.database).filename());
  const std::uint64_t before = log.NewestTxid();
  if (before == 0) Die("the database has no entry in " + options.log);
  MeasureArrival(options, "received", &insert,
                 [&log, before] { return static_cast<std::size_t>(log.NewestTxid() - before); });
}

}  // namespace echofs::bench
