// Runs one workload on one SQLite database and prints what it measured as one line of JSON. tests/bench/bench.py
// runs it on a plain disk and in mounts, and compares; but for `stream` it knows nothing of echofs.
//
//   read     reads of --range rows from a random rowid on, each in a transaction of its own, after everything was
//            read once; with --cold 1 nothing was read by this connection
//   write    transactions that insert one row of 100 random bytes; with --wal-pages the WAL has that many frames
//            before them, and no checkpoint happens
//   mixed    --processes at once, in which one of ten transactions writes a row and the others read one
//   bulk     --megabytes in one transaction
//   vacuum   VACUUM of a database of --megabytes
//   open     opens --count of the databases DATABASE/0.db and so on, once each, and asks for the number of rows
//   paced    commits once a second to each of the databases DATABASE/0.db and so on, in turn
//   visible  transactions at a fixed rate on DATABASE, while another thread polls --replica: how long after
//            COMMIT returned (and after it was called) does it see them?
//   stream   the same commits; polls --log, the directory of the replica's log: how long until the entry is in it,
//            whether it is applied or not?
//   catchup  `write`, then the time until --replica has the last row
//   fill     writes a database of random content, --megabytes large, in many transactions
//   probe    no database: what a sync and a round trip take in the directory that stands for DATABASE
//
// Times are microseconds unless the name says otherwise.
#include <map>
#include <string>
#include <utility>

#include "tests/bench/machine_probe.h"
#include "tests/bench/measure.h"
#include "tests/bench/workloads.h"

namespace {

using echofs::bench::Options;

void Probe(const Options& options) {
  echofs::MachineTimes times = echofs::MeasureMachine(options.database, options.seconds);
  using echofs::bench::Percentiles;
  echofs::bench::PrintResult(
      options, R"({"workload": "probe", "sync_us": )" + Percentiles(std::move(times.sync)) +
                   R"(, "paired_sync_us": )" + Percentiles(std::move(times.paired_sync)) +
                   R"(, "round_trip_us": )" + Percentiles(std::move(times.round_trip)) + "}");
}

}  // namespace

int main(int argc, char** argv) {
  namespace bench = echofs::bench;
  const Options options = bench::ParseOptions(argc, argv);
  const std::map<std::string, void (*)(const Options&)> workloads = {
      {"read", bench::Read},       {"write", bench::Write},     {"mixed", bench::Mixed},
      {"bulk", bench::Bulk},       {"vacuum", bench::Vacuum},   {"open", bench::Open},
      {"paced", bench::Paced},     {"visible", bench::Visible}, {"stream", bench::Stream},
      {"catchup", bench::Catchup}, {"fill", bench::Fill},       {"probe", Probe}};
  const auto found = workloads.find(options.workload);
  if (found == workloads.end()) bench::DieOfUsage();
  found->second(options);
  return 0;
}
