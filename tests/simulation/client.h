// The applications of a simulated node: transfers between accounts (pages of one database, whose sum never changes), and
// numbers appended to a table (another database). They try again and again, wherever they are.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "replication/lease.h"
#include "replication/log_entry.h"
#include "tests/simulation/page_databases.h"
#include "tests/simulation/scheduler.h"

namespace echofs::sim {

class Process;

inline constexpr char kBank[] = "bank";
inline constexpr char kNumbers[] = "numbers";
inline constexpr PageNumber kAccounts = 6;
inline constexpr std::uint64_t kFirstBalance = 1000;

class Client {
 public:
  explicit Client(Process* process) : process_(process) {}

  void Start() { TryLater(); }
  // Looks whether the commit that waits is acknowledged (D1).
  void Settle();
  // A transaction of some kind, put into the log in this term.
  absl::StatusOr<LogEntry> Commit(Term term);

 private:
  // A commit that waits.
  struct Waiting {
    LogPosition position;
    std::uint64_t number = 0;  // that was appended; 0 for a transfer
    Moment since = 0;
  };

  void TryLater();
  void Try();
  absl::StatusOr<LogEntry> Transfer(Term term);
  absl::StatusOr<LogEntry> TransferWithSqlite();
  absl::StatusOr<LogEntry> AppendNumber(Term term, std::uint64_t number);

  Process* const process_;
  std::optional<Waiting> waiting_;
};

// What the databases hold, for the judge; `sqlite`: they are SQLite's.
std::uint64_t SumOfAccounts(const PageDatabases& databases, bool sqlite);
bool HasNumber(const PageDatabases& databases, std::uint64_t number, bool sqlite);

}  // namespace echofs::sim
