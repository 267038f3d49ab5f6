// Workloads of several processes on one database, and on many databases.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <random>
#include <thread>
#include <utility>

#include "tests/bench/database.h"
#include "tests/bench/measure.h"
#include "tests/bench/workloads.h"

namespace echofs::bench {

namespace {

struct Pipe {
  int read_end;
  int write_end;

  Pipe() {
    int ends[2];
    if (pipe(ends) != 0) Die("no pipe");
    read_end = ends[0];
    write_end = ends[1];
  }
};

// One process of `mixed`: one write among ten transactions.
struct MixedTimes {
  std::vector<float> reads;
  std::vector<float> writes;
};

void SendTimes(int to, const std::vector<float>& values) {
  std::FILE* file = fdopen(dup(to), "wb");
  const std::uint64_t count = values.size();
  if (file == nullptr || std::fwrite(&count, sizeof(count), 1, file) != 1 ||
      std::fwrite(values.data(), sizeof(float), count, file) != count || std::fclose(file) != 0)
    Die("cannot report to the parent");
}

void ReceiveTimes(std::FILE* from, std::vector<float>* values) {
  std::uint64_t count = 0;
  if (std::fread(&count, sizeof(count), 1, from) != 1) Die("a process of mixed has failed");
  const std::size_t before = values->size();
  values->resize(before + count);
  if (std::fread(values->data() + before, sizeof(float), count, from) != count)
    Die("a process of mixed has failed");
}

void MixedProcess(const Options& options, std::uint64_t number, int ready, int go, int results) {
  const Database database(options.database, SQLITE_OPEN_READWRITE);
  database.Execute("PRAGMA synchronous=" + options.synchronous);
  Statement(database, "SELECT sum(length(v)) FROM t").Run();
  Statement read(database, "SELECT length(v) FROM t WHERE id = ?");
  Statement insert(database, kInsert);
  std::minstd_rand random(static_cast<unsigned>(options.seed * 1000 + number + 1));
  char byte = 0;
  if (write(ready, &byte, 1) != 1) Die("the parent of mixed has ended");
  close(ready);
  if (::read(go, &byte, 1) != 0) Die("the parent of mixed has ended");
  MixedTimes times;
  Clock::time_point now = Clock::now();
  const Clock::time_point end = now + FromSeconds(options.seconds);
  while (now < end) {
    const bool writes = random() % 10 == 0;
    if (writes) {
      insert.Run();
    } else {
      read.Bind(static_cast<std::int64_t>(random() % options.rows + 1));
      read.Run();
    }
    const Clock::time_point after = Clock::now();
    (writes ? times.writes : times.reads).push_back(static_cast<float>(Microseconds(after - now)));
    now = after;
  }
  SendTimes(results, times.reads);
  SendTimes(results, times.writes);
}

// The databases of `paced` that one thread commits to, each once a second in its turn.
struct PacedTimes {
  std::vector<float> latencies;
  std::vector<float> late;
};

constexpr std::size_t kPacedThreads = 8;

void PacedThread(const Options& options, std::size_t thread, Clock::time_point start,
                 std::vector<std::unique_ptr<Statement>>* inserts, PacedTimes* times) {
  const double databases = static_cast<double>(inserts->size());
  const auto commits = static_cast<std::size_t>(databases * options.seconds);
  for (std::size_t i = thread; i < commits; i += kPacedThreads) {
    const Clock::time_point due = start + FromSeconds(static_cast<double>(i) / databases);
    std::this_thread::sleep_until(due);
    const Clock::time_point called = Clock::now();
    // The number of databases is a multiple of the threads', so no two threads share one.
    (*inserts)[i % inserts->size()]->Run();
    times->latencies.push_back(static_cast<float>(Microseconds(Clock::now() - called)));
    times->late.push_back(static_cast<float>(Microseconds(called - due)));
  }
}

// A connection is three descriptors.
void AllowManyFiles() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

void Mixed(const Options& options) {
  {
    const auto database = OpenForWriting(options);
    FillRows(*database, options);
  }
  const Pipe ready;
  const Pipe go;
  std::vector<std::FILE*> results;
  std::vector<pid_t> processes;
  for (std::uint64_t i = 0; i < options.processes; ++i) {
    const Pipe result;
    const pid_t process = fork();
    if (process < 0) Die("cannot fork");
    if (process == 0) {
      close(go.write_end);
      MixedProcess(options, i, ready.write_end, go.read_end, result.write_end);
      _exit(0);
    }
    close(result.write_end);
    results.push_back(fdopen(result.read_end, "rb"));
    processes.push_back(process);
  }
  close(ready.write_end);
  char byte = 0;
  for (std::uint64_t i = 0; i < options.processes; ++i)
    if (read(ready.read_end, &byte, 1) != 1) Die("a process of mixed has failed");
  Ready(options);
  const Clock::time_point start = Clock::now();
  close(go.write_end);
  MixedTimes times;
  for (std::FILE* from : results) {
    ReceiveTimes(from, &times.reads);
    ReceiveTimes(from, &times.writes);
  }
  const double seconds = Seconds(Clock::now() - start);
  for (const pid_t process : processes) {
    int status = 0;
    if (waitpid(process, &status, 0) != process || status != 0)
      Die("a process of mixed has failed");
  }
  std::vector<float> all = times.reads;
  all.insert(all.end(), times.writes.begin(), times.writes.end());
  PrintResult(options, ResultText(options, all, seconds) + R"(, "read_us": )" +
                           Percentiles(std::move(times.reads)) + R"(, "write_us": )" +
                           Percentiles(std::move(times.writes)) + "}");
}

void Paced(const Options& options) {
  AllowManyFiles();
  std::vector<std::unique_ptr<Database>> databases;
  std::vector<std::unique_ptr<Statement>> inserts;
  for (std::uint64_t i = 0; i < options.databases / kPacedThreads * kPacedThreads; ++i) {
    databases.push_back(std::make_unique<Database>(
        options.database + "/" + std::to_string(i) + ".db", SQLITE_OPEN_READWRITE));
    databases.back()->Execute("PRAGMA synchronous=" + options.synchronous);
    inserts.push_back(std::make_unique<Statement>(*databases.back(), kInsert));
    inserts.back()->Run();
  }
  if (inserts.empty()) Die("paced needs 8 databases");
  std::vector<PacedTimes> times(kPacedThreads);
  std::vector<std::thread> threads;
  Ready(options);
  const Clock::time_point start = Clock::now();
  for (std::size_t i = 0; i < kPacedThreads; ++i)
    threads.emplace_back(PacedThread, std::cref(options), i, start, &inserts, &times[i]);
  for (std::thread& thread : threads) thread.join();
  const double seconds = Seconds(Clock::now() - start);
  PacedTimes all;
  for (const PacedTimes& part : times) {
    all.latencies.insert(all.latencies.end(), part.latencies.begin(), part.latencies.end());
    all.late.insert(all.late.end(), part.late.begin(), part.late.end());
  }
  PrintResult(options, ResultText(options, all.latencies, seconds) + R"(, "late_us": )" +
                           Percentiles(std::move(all.late)) + "}");
}

}  // namespace echofs::bench
