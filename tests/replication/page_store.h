// The databases of a node as plain pages in memory, with real change sets and digests: what fs/ is
// for SQLite files, for tests of replication. It outlives the node, as a disk does.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "replication/apply_target.h"

namespace echofs {

class PageStore final : public ApplyTarget {
 public:
  using Page = std::vector<std::uint8_t>;
  using Pages = std::map<PageNumber, Page>;

  // The primary's side: changes a database (made when missing) and appends the change set to the
  // log, as one step. Pages beyond `page_count` go away, missing ones are zeros. Another
  // `page_size` than before wants all pages, as after VACUUM.
  LogIndex Commit(ChangeLog& log, Term term, const std::string& database, std::uint32_t page_size,
                  PageNumber page_count, const Pages& pages) ABSL_LOCKS_EXCLUDED(mutex_);
  LogIndex Drop(ChangeLog& log, Term term, const std::string& database) ABSL_LOCKS_EXCLUDED(mutex_);

  // Faults. Blocked: joins, applies and installs report this pid until it is 0.
  void SetBlocked(const std::string& database, int pid) ABSL_LOCKS_EXCLUDED(mutex_);
  // The next apply to the database leaves a wrong page behind.
  void DamageNextApply(const std::string& database) ABSL_LOCKS_EXCLUDED(mutex_);
  // Applies fail with this status until it is OK.
  void SetApplyError(absl::Status status) ABSL_LOCKS_EXCLUDED(mutex_);
  // Called at the start of each ReadPages, without locks; an error is what ReadPages returns.
  using ReadHook = std::function<absl::Status(const std::string& database, PageNumber first)>;
  void SetReadHook(ReadHook hook) ABSL_LOCKS_EXCLUDED(mutex_);

  // The node starts anew on what is on its disk: databases whose position was forgotten are not there.
  void Restart() ABSL_LOCKS_EXCLUDED(mutex_);

  // Observations.
  int installs(const std::string& database) const ABSL_LOCKS_EXCLUDED(mutex_);
  int page_installs(const std::string& database) const ABSL_LOCKS_EXCLUDED(mutex_);
  int syncs() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Name, page size and all pages of every database: equal on nodes that have converged.
  std::string Dump() const ABSL_LOCKS_EXCLUDED(mutex_);

  absl::StatusOr<DatabasePosition> AppliedPosition(const std::string& database) override
      ABSL_LOCKS_EXCLUDED(mutex_);
  std::vector<std::string> LocalDatabases() override ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<ApplyOutcome> Apply(const LogEntry& entry, ByteSource& payload) override
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<ApplyOutcome> Join(const std::string& database) override
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<ApplyOutcome> InstallCopy(const DatabasePosition& position,
                                           const std::string& file) override
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<ApplyOutcome> InstallPages(const DatabasePosition& position,
                                            const std::string& file, const PageSet& pages) override
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status ForgetPositions(const std::vector<std::string>& databases) override
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status EndTurn(const std::string&) override { return absl::OkStatus(); }
  absl::StatusOr<PageRun> ReadPages(const std::string& database, PageNumber first,
                                    std::uint32_t count) override ABSL_LOCKS_EXCLUDED(mutex_);
  // It has no applications that write by themselves.
  absl::Status StopWriters(absl::Time) override { return absl::OkStatus(); }
  absl::Status ResumeWriters() override { return absl::OkStatus(); }
  absl::Status BecomePrimary(Term) override { return absl::OkStatus(); }
  absl::Status BecomeReplica() override { return absl::OkStatus(); }
  absl::Status SyncAll() override ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Database {
    DatabasePosition position;
    std::vector<Page> pages;  // page n at n - 1
  };

  static std::uint64_t Digest(const Database& database);
  static void Resize(Database& database, std::uint32_t page_size, PageNumber page_count);

  mutable absl::Mutex mutex_;
  std::map<std::string, Database> databases_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, int> blocked_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> damage_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, int> installs_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, int> page_installs_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> forgotten_ ABSL_GUARDED_BY(mutex_);
  absl::Status apply_error_ ABSL_GUARDED_BY(mutex_);
  ReadHook read_hook_ ABSL_GUARDED_BY(mutex_);
  int syncs_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace echofs
