// Runs one workload on one SQLite database and prints what it measured as one line of JSON. tests/bench/bench.py
// runs it on a plain disk and in mounts, and compares; but for `stream` it knows nothing of echofs.
//
//   read     point reads by rowid, each in a transaction of its own, after everything was read once
//   write    transactions that insert one row of 100 random bytes
//   visible  transactions at a fixed rate on DATABASE, while another thread polls --replica: how long after
//            COMMIT returned (and after it was called) does it see them?
//   stream   the same commits; polls --log, the directory of the replica's log: how long until the entry is in it,
//            whether it is applied or not?
//   catchup  `write`, then the time until --replica has the last row
//   fill     writes a database of random content, --megabytes large
//   probe    no database: what a sync and a round trip take in the directory that stands for DATABASE
//
// Times are microseconds unless the name says otherwise.
#include <sqlite3.h>
#include <sys/prctl.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/bench/machine_probe.h"
#include "tests/bench/received_log.h"

namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void Die(const std::string& message) {
  std::fprintf(stderr, "workload: %s\n", message.c_str());
  std::exit(1);
}

constexpr char kUsage[] =
    "usage: workload read|write|visible|stream|catchup|fill|probe DATABASE [--journal "
    "wal|delete|truncate|persist]\n"
    "         [--synchronous off|normal|full] [--seconds S] [--count N] [--rate PER_SECOND] "
    "[--replica PATH] [--log DIRECTORY]\n"
    "         [--rows N] [--megabytes N]\n"
    "A run ends after --seconds, or after --count transactions when that is given.";

struct Options {
  std::string workload;
  std::string database;
  std::string journal = "wal";
  std::string synchronous = "normal";
  std::string replica;
  std::string log;
  double seconds = 1;
  std::uint64_t count = 0;  // 0: by time
  double rate = 1000;       // transactions a second
  std::uint64_t rows = 10000;
  std::uint64_t megabytes = 200;
};

Options ParseOptions(int argc, char** argv) {
  if (argc < 3) Die(kUsage);
  std::map<std::string, std::string> values;
  for (int i = 3; i < argc; i += 2) {
    if (i + 1 >= argc) Die(kUsage);
    values[argv[i]] = argv[i + 1];
  }
  const auto take = [&values](const char* name, auto set) {
    const auto found = values.find(name);
    if (found == values.end()) return;
    set(found->second);
    values.erase(found);
  };
  Options options;
  options.workload = argv[1];
  options.database = argv[2];
  take("--journal", [&](const std::string& v) { options.journal = v; });
  take("--synchronous", [&](const std::string& v) { options.synchronous = v; });
  take("--replica", [&](const std::string& v) { options.replica = v; });
  take("--log", [&](const std::string& v) { options.log = v; });
  take("--seconds", [&](const std::string& v) { options.seconds = std::atof(v.c_str()); });
  take("--count",
       [&](const std::string& v) { options.count = std::strtoull(v.c_str(), nullptr, 10); });
  take("--rate", [&](const std::string& v) { options.rate = std::atof(v.c_str()); });
  take("--rows",
       [&](const std::string& v) { options.rows = std::strtoull(v.c_str(), nullptr, 10); });
  take("--megabytes",
       [&](const std::string& v) { options.megabytes = std::strtoull(v.c_str(), nullptr, 10); });
  if (!values.empty()) Die("unknown option " + values.begin()->first + "\n" + kUsage);
  if (options.rows == 0 || options.rate <= 0) Die("--rows and --rate must be above 0");
  return options;
}

// One connection; ends the program when SQLite reports an error.
class Database {
 public:
  Database(const std::string& path, int flags) : path_(path) {
    Check(sqlite3_open_v2(path.c_str(), &db_, flags, nullptr), "opening");
    sqlite3_busy_timeout(db_, 30000);
  }
  ~Database() { sqlite3_close(db_); }
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  void Check(int rc, const std::string& what) const {
    if (rc == SQLITE_OK || rc == SQLITE_DONE || rc == SQLITE_ROW) return;
    Die(path_ + ": " + what + ": " + (db_ != nullptr ? sqlite3_errmsg(db_) : sqlite3_errstr(rc)));
  }
  void Execute(const std::string& sql) const {
    Check(sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr), sql);
  }
  sqlite3* get() const { return db_; }

 private:
  const std::string path_;
  sqlite3* db_ = nullptr;
};

class Statement {
 public:
  Statement(const Database& database, const char* sql) : database_(database) {
    database.Check(sqlite3_prepare_v2(database.get(), sql, -1, &statement_, nullptr), sql);
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  void Bind(std::int64_t value) { sqlite3_bind_int64(statement_, 1, value); }
  // Runs to the end; the first column of the last row, or 0.
  std::int64_t Run() {
    std::int64_t value = 0;
    int rc;
    while ((rc = sqlite3_step(statement_)) == SQLITE_ROW)
      value = sqlite3_column_int64(statement_, 0);
    database_.Check(rc, sqlite3_sql(statement_));
    sqlite3_reset(statement_);
    return value;
  }

 private:
  const Database& database_;
  sqlite3_stmt* statement_ = nullptr;
};

double Microseconds(Clock::duration d) {
  return std::chrono::duration<double, std::micro>(d).count();
}
double Seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }
Clock::duration FromSeconds(double s) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(s));
}

// {"p50": ..., ...} of latencies in microseconds.
std::string Percentiles(std::vector<float> values) {
  if (values.empty()) Die("nothing was measured");
  std::sort(values.begin(), values.end());
  const auto at = [&values](double p) {
    return values[static_cast<std::size_t>(p * static_cast<double>(values.size() - 1))];
  };
  char text[160];
  std::snprintf(text, sizeof(text),
                R"({"p50": %.1f, "p90": %.1f, "p99": %.1f, "p999": %.1f, "max": %.1f})", at(0.5),
                at(0.9), at(0.99), at(0.999), values.back());
  return text;
}

// Calls `transaction` for the asked time or count; prints everything but the closing brace.
template <class Transaction>
void Measure(const Options& options, Transaction transaction) {
  std::vector<float> latencies;
  latencies.reserve(options.count != 0 ? options.count : 1 << 20);
  const Clock::time_point start = Clock::now();
  const Clock::time_point end = start + FromSeconds(options.seconds);
  Clock::time_point now = start;
  while (options.count != 0 ? latencies.size() < options.count : now < end) {
    transaction();
    const Clock::time_point after = Clock::now();
    latencies.push_back(static_cast<float>(Microseconds(after - now)));
    now = after;
  }
  const std::size_t transactions = latencies.size();
  std::printf(
      R"({"workload": "%s", "transactions": %zu, "seconds": %.4f, "per_second": %.1f, "latency_us": %s)",
      options.workload.c_str(), transactions, Seconds(now - start),
      static_cast<double>(transactions) / Seconds(now - start),
      Percentiles(std::move(latencies)).c_str());
}

std::unique_ptr<Database> OpenForWriting(const Options& options) {
  auto database =
      std::make_unique<Database>(options.database, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
  database->Execute("PRAGMA journal_mode=" + options.journal);
  database->Execute("PRAGMA synchronous=" + options.synchronous);
  database->Execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v)");
  return database;
}

void Read(const Options& options) {
  const auto database = OpenForWriting(options);
  database->Execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < " +
                    std::to_string(options.rows) +
                    ") INSERT OR IGNORE INTO t SELECT i, randomblob(100) FROM n");
  Statement(*database, "SELECT sum(length(v)) FROM t").Run();
  Statement read(*database, "SELECT length(v) FROM t WHERE id = ?");
  std::minstd_rand random(1);
  Measure(options, [&] {
    read.Bind(static_cast<std::int64_t>(random() % options.rows + 1));
    if (read.Run() != 100) Die("a row is missing");
  });
  std::printf("}\n");
}

void Write(const Options& options) {
  const auto database = OpenForWriting(options);
  Statement insert(*database, "INSERT INTO t(v) VALUES (randomblob(100))");
  Measure(options, [&] { insert.Run(); });
  std::printf("}\n");
}

// Opened again and again until it is there: a replica may not have the database or its table yet.
std::unique_ptr<Database> OpenReplica(const Options& options) {
  if (options.replica.empty()) Die(options.workload + " needs --replica");
  const Clock::time_point end = Clock::now() + std::chrono::seconds(60);
  while (Clock::now() < end) {
    sqlite3* probe = nullptr;
    int rc = sqlite3_open_v2(options.replica.c_str(), &probe, SQLITE_OPEN_READONLY, nullptr);
    if (rc == SQLITE_OK)
      rc = sqlite3_exec(probe, "SELECT max(id) FROM t", nullptr, nullptr, nullptr);
    sqlite3_close(probe);
    if (rc == SQLITE_OK) return std::make_unique<Database>(options.replica, SQLITE_OPEN_READONLY);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  Die(options.replica + " did not get the table within a minute");
}

void Catchup(const Options& options) {
  const auto database = OpenForWriting(options);
  const auto replica = OpenReplica(options);
  Statement insert(*database, "INSERT INTO t(v) VALUES (randomblob(100))");
  Statement last(*replica, "SELECT max(id) FROM t");
  Measure(options, [&] { insert.Run(); });
  const Clock::time_point start = Clock::now();
  const std::int64_t id = sqlite3_last_insert_rowid(database->get());
  const std::int64_t behind = id - last.Run();
  while (last.Run() < id) {
    if (Clock::now() - start > std::chrono::minutes(2))
      Die("the replica did not catch up in 2 minutes");
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  std::printf(R"(, "behind": %lld, "catchup_ms": %.2f})"
              "\n",
              static_cast<long long>(behind), Seconds(Clock::now() - start) * 1000);
}

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
  std::printf(R"({"workload": "%s", "transactions": %zu, "seconds": %.4f, "per_second": %.1f, )"
              R"("%s_us": %s, "%s_from_call_us": %s})"
              "\n",
              options.workload.c_str(), commits.size(), seconds,
              static_cast<double>(commits.size()) / seconds, what,
              Percentiles(std::move(from_return)).c_str(), what,
              Percentiles(std::move(from_call)).c_str());
}

void Visible(const Options& options) {
  const auto database = OpenForWriting(options);
  const auto replica = OpenReplica(options);
  Statement insert(*database, "INSERT INTO t(v) VALUES (randomblob(100))");
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
  Statement insert(*database, "INSERT INTO t(v) VALUES (randomblob(100))");
  insert.Run();
  const std::int64_t id = sqlite3_last_insert_rowid(database->get());
  Statement last(*replica, "SELECT max(id) FROM t");
  while (last.Run() < id) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  // What is visible is in the log; from here on every commit is the database's next entry.
  echofs::ReceivedLog log(options.log, std::filesystem::path(options.database).filename());
  const std::uint64_t before = log.NewestTxid();
  if (before == 0) Die("the database has no entry in " + options.log);
  MeasureArrival(options, "received", &insert,
                 [&log, before] { return static_cast<std::size_t>(log.NewestTxid() - before); });
}

void Fill(const Options& options) {
  const auto database = OpenForWriting(options);
  database->Execute("PRAGMA cache_size=-8000");
  Statement insert(*database,
                   "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1024) "
                   "INSERT INTO t(v) SELECT randomblob(4000) FROM n");
  const Clock::time_point start = Clock::now();
  for (std::uint64_t i = 0; i < std::max<std::uint64_t>(1, options.megabytes / 4); ++i)
    insert.Run();
  const double seconds = Seconds(Clock::now() - start);
  std::printf(R"({"workload": "fill", "megabytes": %llu, "seconds": %.4f})"
              "\n",
              static_cast<unsigned long long>(options.megabytes), seconds);
}

void Probe(const Options& options) {
  echofs::MachineTimes times = echofs::MeasureMachine(options.database, options.seconds);
  std::printf(R"({"workload": "probe", "sync_us": %s, "paired_sync_us": %s, "round_trip_us": %s})"
              "\n",
              Percentiles(std::move(times.sync)).c_str(),
              Percentiles(std::move(times.paired_sync)).c_str(),
              Percentiles(std::move(times.round_trip)).c_str());
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = ParseOptions(argc, argv);
  const std::map<std::string, void (*)(const Options&)> workloads = {
      {"read", Read},       {"write", Write}, {"visible", Visible}, {"stream", Stream},
      {"catchup", Catchup}, {"fill", Fill},   {"probe", Probe}};
  const auto found = workloads.find(options.workload);
  if (found == workloads.end()) Die(kUsage);
  found->second(options);
  return 0;
}
