#include "tests/simulation/client.h"

#include <fmt/format.h>

#include <string>
#include <utility>

#include "tests/simulation/judge.h"
#include "tests/simulation/process.h"
#include "tests/simulation/sqlite_client.h"

namespace echofs::sim {
namespace {

constexpr std::uint64_t kNumbersPerPage = kPageSize / 8 - 1;  // the first word is their count
constexpr Moment kWaitMax = 3 * kSecond;

PageDatabases::Page PageOf(const PageDatabases& databases, const char* name, PageNumber number) {
  const PageDatabases::Page* page = databases.Find(name, number);
  return page != nullptr ? *page : PageDatabases::Page(kPageSize);
}

}  // namespace

void Client::TryLater() {
  World& world = process_->world();
  process_->After(world.random.Between(kMillisecond, world.options.commit_interval_max),
                  [this] { Try(); });
}

void Client::Try() {
  TryLater();
  World& world = process_->world();
  if (waiting_ || world.quiet || !process_->serving()) return;
  if (!process_->CanCommit()) {
    ++world.counts.refused;
    return;
  }
  world.judge->OnCommit(process_->node().number());
  const bool append = world.random.Chance(500);
  const std::uint64_t number = append ? world.judge->NewNumber() : 0;
  const absl::StatusOr<LogEntry> entry = append ? AppendNumber(process_->machine().term(), number)
                                                : Transfer(process_->machine().term());
  if (!entry.ok()) {
    // SQLite reports a disk that fails, is full or has lost its power as an I/O error.
    const bool in_doubt = world.options.sqlite && absl::IsUnavailable(entry.status());
    if (process_->node().disk().powered() && !absl::IsResourceExhausted(entry.status()) &&
        !in_doubt) {
      world.Fail("commit: " + entry.status().ToString());
    }
    return;
  }
  ++world.counts.commits;
  process_->OnAppended(*entry, true);
  process_->sender().Appended();
  const bool waits = world.faults_over || world.random.Chance(world.options.waits_per_mille);
  if (waits) {
    process_->RequestSync();
    waiting_ = Waiting{{entry->term, entry->index}, number, world.scheduler.now()};
  } else if (world.random.Chance(200)) {
    process_->RequestSync();
  }
}

void Client::Settle() {
  if (!waiting_) return;
  World& world = process_->world();
  const RoleMachine& machine = process_->machine();
  const bool same_tenure = machine.leading() && machine.term() == waiting_->position.term;
  if (same_tenure && machine.acknowledged_index() >= waiting_->position.index) {
    const Waiting told = *std::exchange(waiting_, {});
    ++world.counts.acknowledged;
    world.judge->OnTold(told.position, told.number);
  } else if (!same_tenure || world.scheduler.now() > waiting_->since + kWaitMax) {
    waiting_.reset();  // in doubt: the application gets an error
  }
}

absl::StatusOr<LogEntry> Client::TransferWithSqlite() {
  Random& random = process_->world().random;
  const std::uint64_t from = random.Below(kAccounts);
  const std::uint64_t to = (from + 1 + random.Below(kAccounts - 1)) % kAccounts;
  const std::uint64_t amount = 1 + random.Below(kFirstBalance);
  return CommitWithSqlite(
      process_, kBank,
      fmt::format("CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER, changes INTEGER); "
                  "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n LIMIT {}) "
                  "INSERT INTO account SELECT i, {}, 0 FROM n",
                  kAccounts, kFirstBalance),
      fmt::format("UPDATE account SET balance = balance - {}, changes = changes + 1 WHERE id = {}; "
                  "UPDATE account SET balance = balance + {}, changes = changes + 1 WHERE id = {}",
                  amount, from, amount, to));
}

absl::StatusOr<LogEntry> Client::Commit(Term term) {
  World& world = process_->world();
  return world.random.Chance(500) ? AppendNumber(term, world.judge->NewNumber()) : Transfer(term);
}

absl::StatusOr<LogEntry> Client::Transfer(Term term) {
  if (process_->world().options.sqlite) return TransferWithSqlite();
  PageDatabases& databases = process_->databases();
  Random& random = process_->world().random;
  PageDatabases::Pages pages;
  if (databases.page_count(kBank) == 0) {
    for (PageNumber number = 1; number <= kAccounts; ++number) {
      pages[number] = PageDatabases::Page(kPageSize);
      StoreBe64(pages[number].data(), kFirstBalance);
    }
  } else {
    const PageNumber from = 1 + static_cast<PageNumber>(random.Below(kAccounts));
    const PageNumber to =
        1 + (from + static_cast<PageNumber>(random.Below(kAccounts - 1))) % kAccounts;
    pages[from] = PageOf(databases, kBank, from);
    pages[to] = PageOf(databases, kBank, to);
    const std::uint64_t balance = LoadBe64(pages[from].data());
    const std::uint64_t amount = random.Below(balance + 1);
    StoreBe64(pages[from].data(), balance - amount);
    StoreBe64(pages[to].data(), LoadBe64(pages[to].data()) + amount);
    StoreBe64(pages[to].data() + 8, random.Next());
  }
  return databases.Commit(kBank, term, absl::ToUnixMillis(process_->now()), kAccounts, pages);
}

absl::StatusOr<LogEntry> Client::AppendNumber(Term term, std::uint64_t number) {
  if (process_->world().options.sqlite) {
    const std::string insert = fmt::format("INSERT INTO number VALUES ({})", number);
    return CommitWithSqlite(process_, kNumbers,
                            "CREATE TABLE number(n INTEGER PRIMARY KEY); " + insert, insert);
  }
  PageDatabases& databases = process_->databases();
  PageNumber last = std::max<PageNumber>(databases.page_count(kNumbers), 1);
  PageDatabases::Page page = PageOf(databases, kNumbers, last);
  if (LoadBe64(page.data()) == kNumbersPerPage) {
    ++last;
    page = PageDatabases::Page(kPageSize);
  }
  const std::uint64_t count = LoadBe64(page.data()) + 1;
  StoreBe64(page.data(), count);
  StoreBe64(page.data() + 8 * count, number);
  return databases.Commit(kNumbers, term, absl::ToUnixMillis(process_->now()), last,
                          {{last, page}});
}

std::uint64_t SumOfAccounts(const PageDatabases& databases, bool sqlite) {
  std::uint64_t sum = 0;
  if (sqlite) {
    const auto found = QueryWithSqlite(databases, kBank, "SELECT sum(balance) FROM account");
    return found.ok() && !found->empty() ? static_cast<std::uint64_t>(found->front()) : 0;
  }
  for (PageNumber number = 1; number <= kAccounts; ++number) {
    sum += LoadBe64(PageOf(databases, kBank, number).data());
  }
  return sum;
}

bool HasNumber(const PageDatabases& databases, std::uint64_t number, bool sqlite) {
  if (sqlite) {
    const auto found = QueryWithSqlite(databases, kNumbers,
                                       fmt::format("SELECT n FROM number WHERE n = {}", number));
    return found.ok() && !found->empty();
  }
  for (PageNumber i = 1; i <= databases.page_count(kNumbers); ++i) {
    const PageDatabases::Page page = PageOf(databases, kNumbers, i);
    for (std::uint64_t j = 1; j <= LoadBe64(page.data()); ++j) {
      if (LoadBe64(page.data() + 8 * j) == number) return true;
    }
  }
  return false;
}

}  // namespace echofs::sim
