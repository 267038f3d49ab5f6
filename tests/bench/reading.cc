// Workloads that read.
#include <algorithm>
#include <numeric>
#include <random>
#include <utility>

#include "tests/bench/database.h"
#include "tests/bench/measure.h"
#include "tests/bench/workloads.h"

namespace echofs::bench {

void Read(const Options& options) {
  auto database = OpenForWriting(options);
  FillRows(*database, options);
  if (options.cold) {
    // Another connection, so that SQLite has no pages either. Closing the first puts the WAL into the database.
    database.reset();
    database = std::make_unique<Database>(options.database, SQLITE_OPEN_READWRITE);
  } else {
    Statement(*database, "SELECT sum(length(v)) FROM t").Run();
  }
  const std::string to = std::to_string(options.range - 1);
  Statement read(*database,
                 ("SELECT sum(length(v)) FROM t WHERE id BETWEEN ?1 AND ?1 + " + to).c_str());
  Statement point(*database, "SELECT length(v) FROM t WHERE id = ?");
  Statement* const statement = options.range == 1 ? &point : &read;
  const auto expected = static_cast<std::int64_t>(100 * options.range);
  std::minstd_rand random(static_cast<unsigned>(options.seed));
  const std::string result = Measure(options, [&] {
    statement->Bind(static_cast<std::int64_t>(random() % (options.rows - options.range + 1) + 1));
    if (statement->Run() != expected) Die("a row is missing");
  });
  PrintResult(options, result + "}");
}

void Open(const Options& options) {
  std::vector<std::uint64_t> order(options.databases);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::minstd_rand(static_cast<unsigned>(options.seed)));
  order.resize(std::min<std::size_t>(order.size(), options.count != 0 ? options.count : 1000));
  std::vector<float> latencies;
  double seconds = 0;
  Ready(options);
  for (const std::uint64_t number : order) {
    const Clock::time_point start = Clock::now();
    const Database database(options.database + "/" + std::to_string(number) + ".db",
                            SQLITE_OPEN_READWRITE);
    if (Statement(database, "SELECT count(*) FROM t").Run() < 1) Die("a row is missing");
    const Clock::duration taken = Clock::now() - start;
    latencies.push_back(static_cast<float>(Microseconds(taken)));
    seconds += Seconds(taken);
  }
  PrintResult(options, ResultText(options, latencies, seconds) + "}");
}

}  // namespace echofs::bench
