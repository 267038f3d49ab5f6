// The databases of a simulated node: pages behind ApplyTarget, with real change sets and digests. The counterpart of
// fs/database_set and, for what is applied and copied, of replication/apply_queue and database_copy.
//
// What survives a crash: each database's last saved state, in a file that is written whole, synced, and put in the place of
// the old one by a rename. The file says after which entry (index and term) it stands, so that a state which is not of the
// log's history (its entries were cut off, or lost with the power) is known as such and fetched anew. From a saved state on,
// the log's entries are applied again at the start (L5).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "replication/apply_target.h"
#include "tests/simulation/messages.h"

namespace echofs::sim {

inline constexpr std::uint32_t kPageSize = 512;

class PageDatabases final : public ApplyTarget {
 public:
  using Page = std::vector<std::uint8_t>;
  using Pages = std::map<PageNumber, Page>;

  // Owns neither. `log` is open and recovered.
  PageDatabases(Storage* storage, std::string directory, ChangeLog* log);

  // Reads what was saved and applies what the log has after it.
  absl::Status Recover();

  // ---- As primary ----
  // One transaction: these pages change, and the database has `page_count` afterwards. Returns its entry. An error
  // changes nothing.
  absl::StatusOr<LogEntry> Commit(const std::string& name, Term term, std::int64_t time_ms,
                                  PageNumber page_count, const Pages& pages);
  // The newest state, NotFound when there is none.
  absl::StatusOr<DatabaseCopy> Copy(const std::string& name) const;

  // ---- As replica ----
  // Applies what the log has.
  absl::Status ApplyLog();
  // The log lost its entries after `kept`, or began anew: what stands elsewhere than the log's history is forgotten.
  void LogWasCut(LogIndex kept);
  void LogWasReset();
  // Databases that the log's entries do not lead to: they want a copy.
  const std::set<std::string>& incomplete() const { return incomplete_; }
  // Installs the copy as soon as the log has come so far.
  void Offer(DatabaseCopy copy);

  // Makes the states durable that stand at entries up to `synced`, which are.
  absl::Status Save(LogIndex synced);
  // The first entry of the log that recovery would need.
  LogIndex needed_index() const;

  // ---- Observations ----
  // Page `number` of a database, null when there is none.
  const Page* Find(const std::string& name, PageNumber number) const;
  PageNumber page_count(const std::string& name) const;
  // Every database that is complete has the digest that the log says, and its pages have that digest.
  absl::Status Verify() const;
  // A hash over names, positions and pages.
  std::uint64_t Fingerprint() const;

  // ---- ApplyTarget ----
  absl::StatusOr<DatabasePosition> AppliedPosition(const std::string& database) override;
  std::vector<std::string> LocalDatabases() override;
  absl::StatusOr<ApplyOutcome> Apply(const LogEntry& entry, ByteSource& payload) override;
  absl::StatusOr<ApplyOutcome> Join(const std::string&) override { return ApplyOutcome{}; }
  // Copies come as values here, always whole: see Offer.
  absl::StatusOr<ApplyOutcome> InstallCopy(const DatabasePosition&, const std::string&) override;
  absl::StatusOr<ApplyOutcome> InstallPages(const DatabasePosition&, const std::string&,
                                            const PageSet&) override;
  absl::Status EndTurn(const std::string&) override { return absl::OkStatus(); }
  absl::StatusOr<PageRun> ReadPages(const std::string& database, PageNumber first,
                                    std::uint32_t count) override;
  absl::Status StopWriters(absl::Time) override { return absl::OkStatus(); }
  absl::Status ResumeWriters() override { return absl::OkStatus(); }
  absl::Status BecomePrimary(Term) override;
  absl::Status BecomeReplica() override { return absl::OkStatus(); }
  // Durable: their states are not in the files any more, and copies are wanted.
  absl::Status ForgetPositions(const std::vector<std::string>& databases) override;
  absl::Status SyncAll() override { return Save(log_->synced_index()); }

 private:
  struct Database {
    DatabasePosition position;
    Term term;  // of its last entry
    std::vector<Page> pages;
    LogIndex saved;  // the entry at which the file stands
  };

  std::string PathOf(const std::string& name) const { return directory_ + "/" + name; }
  absl::Status Load(const std::string& name);
  absl::Status Store(Database* database);
  static void Resize(Database* database, PageNumber page_count);
  static void Write(Database* database, PageNumber number, ByteView page);
  static std::uint64_t Scan(const Database& database);
  // Whether the state is one of the log's history.
  bool InHistory(const DatabasePosition& position, Term term) const;
  void Forget(const std::string& name);
  // Finds databases of the log that are not here.
  void FindMissing();
  absl::Status InstallCopies();

  Storage* const storage_;
  const std::string directory_;
  ChangeLog* const log_;
  std::map<std::string, Database> databases_;
  std::set<std::string> incomplete_;
  std::map<std::string, DatabaseCopy> offered_;
  LogIndex next_{1};                   // the next entry to apply
  std::unique_ptr<LogReader> reader_;  // at next_; null when it must be made anew
};

}  // namespace echofs::sim
