// Workloads in which one connection writes.
#include <filesystem>

#include "tests/bench/database.h"
#include "tests/bench/measure.h"
#include "tests/bench/workloads.h"

namespace echofs::bench {

namespace {

// Writes --megabytes of random content in rows of 1000 bytes, in one transaction.
void InsertMegabytes(const Database& database, const Options& options) {
  database.Execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < " +
                   std::to_string(options.megabytes * 1000) +
                   ") INSERT INTO t(v) SELECT randomblob(1000) FROM n");
}

template <class Work>
void MeasureOnce(const Options& options, Work work) {
  Ready(options);
  const Clock::time_point start = Clock::now();
  work();
  PrintResult(options, ResultText(options, 1, Seconds(Clock::now() - start)) + "}");
}

// Changes 100 pages again and again until the WAL has --wal-pages; from then on no checkpoint makes it smaller.
void GrowWal(const Database& database, const Options& options) {
  constexpr std::uint64_t kFrame = 4096 + 24;
  database.Execute("PRAGMA wal_autocheckpoint=0");
  database.Execute("CREATE TABLE changing(id INTEGER PRIMARY KEY, v)");
  database.Execute(
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) "
      "INSERT INTO changing(v) SELECT randomblob(4000) FROM n");
  Statement change(database, "UPDATE changing SET v = randomblob(4000)");
  while (std::filesystem::file_size(options.database + "-wal") < options.wal_pages * kFrame)
    change.Run();
  database.Execute(kInsert);
  if (!options.replica.empty()) WaitForReplica(database, options);
}

}  // namespace

void Write(const Options& options) {
  const auto database = OpenForWriting(options);
  if (options.wal_pages != 0) GrowWal(*database, options);
  Statement insert(*database, kInsert);
  PrintResult(options, Measure(options, [&] { insert.Run(); }) + "}");
}

void Bulk(const Options& options) {
  const auto database = OpenForWriting(options);
  MeasureOnce(options, [&] { InsertMegabytes(*database, options); });
}

void Vacuum(const Options& options) {
  const auto database = OpenForWriting(options);
  InsertMegabytes(*database, options);
  if (options.journal == "wal") database->Execute("PRAGMA wal_checkpoint(TRUNCATE)");
  MeasureOnce(options, [&] { database->Execute("VACUUM"); });
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
  PrintResult(options, ResultText(options, 1, Seconds(Clock::now() - start)) + "}");
}

}  // namespace echofs::bench
