#include "tests/bench/options.h"

#include <cstdio>
#include <cstdlib>
#include <map>

namespace echofs::bench {

namespace {

constexpr char kUsage[] =
    "usage: workload read|write|mixed|bulk|vacuum|open|paced|visible|stream|catchup|fill|probe "
    "DATABASE\n"
    "         [--journal wal|delete|truncate|persist] [--synchronous off|normal|full] [--seconds "
    "S]\n"
    "         [--count N] [--rate PER_SECOND] [--replica PATH] [--log DIRECTORY] [--rows N] "
    "[--range N]\n"
    "         [--megabytes N] [--wal-pages N] [--databases N] [--processes N] [--seed N] [--cold "
    "0|1]\n"
    "         [--wait 0|1]\n"
    "A run ends after --seconds, or after --count transactions when that is given.";

}  // namespace

void Die(const std::string& message) {
  std::fprintf(stderr, "workload: %s\n", message.c_str());
  std::exit(1);
}

void DieOfUsage() { Die(kUsage); }

Options ParseOptions(int argc, char** argv) {
  if (argc < 3) DieOfUsage();
  std::map<std::string, std::string> values;
  for (int i = 3; i < argc; i += 2) {
    if (i + 1 >= argc) DieOfUsage();
    values[argv[i]] = argv[i + 1];
  }
  const auto take = [&values](const char* name, auto set) {
    const auto found = values.find(name);
    if (found == values.end()) return;
    set(found->second);
    values.erase(found);
  };
  const auto text = [&take](const char* name, std::string* to) {
    take(name, [to](const std::string& v) { *to = v; });
  };
  const auto real = [&take](const char* name, double* to) {
    take(name, [to](const std::string& v) { *to = std::atof(v.c_str()); });
  };
  const auto number = [&take](const char* name, std::uint64_t* to) {
    take(name, [to](const std::string& v) { *to = std::strtoull(v.c_str(), nullptr, 10); });
  };
  const auto flag = [&take](const char* name, bool* to) {
    take(name, [to](const std::string& v) { *to = v == "1"; });
  };
  Options options;
  options.workload = argv[1];
  options.database = argv[2];
  text("--journal", &options.journal);
  text("--synchronous", &options.synchronous);
  text("--replica", &options.replica);
  text("--log", &options.log);
  real("--seconds", &options.seconds);
  real("--rate", &options.rate);
  number("--count", &options.count);
  number("--rows", &options.rows);
  number("--range", &options.range);
  number("--megabytes", &options.megabytes);
  number("--wal-pages", &options.wal_pages);
  number("--databases", &options.databases);
  number("--processes", &options.processes);
  number("--seed", &options.seed);
  flag("--cold", &options.cold);
  flag("--wait", &options.wait);
  if (!values.empty()) {
    std::fprintf(stderr, "workload: unknown option %s\n", values.begin()->first.c_str());
    DieOfUsage();
  }
  if (options.range == 0 || options.rows < options.range || options.rate <= 0 ||
      options.databases == 0 || options.processes == 0)
    Die("--rows, --rate, --databases and --processes must be above 0, --range between 1 and "
        "--rows");
  return options;
}

}  // namespace echofs::bench
