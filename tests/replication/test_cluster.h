// Nodes of a small cluster in one process: real sockets on loopback, real logs in a temporary
// directory, page stores as databases.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "replication/change_log.h"
#include "replication/commit_fence.h"
#include "replication/node.h"
#include "tests/replication/page_store.h"
#include "tests/replication/table_lease.h"
#include "tests/replication/temp_directory.h"

namespace echofs {

inline constexpr std::uint32_t kTestPageSize = 512;

// Waits until `condition` holds, for a minute at most; false when it never did.
bool Eventually(const std::function<bool()>& condition);

// A node that can be closed, killed and opened again on the same disk.
class TestNode {
 public:
  explicit TestNode(std::string id);
  ~TestNode();

  // As a primary: on a free port at first, and on the same one afterwards.
  absl::Status StartPrimary();
  // As a replica of the node at this address.
  absl::Status StartReplica(const std::string& primary_address);
  // As a node whose role the lease decides. The lease must outlive this node.
  absl::Status StartMember(TableLeaseService* service, absl::Duration ttl, bool candidate = true);
  // In order, as SIGTERM does.
  void Stop();
  // With nothing synced, as a crash of the process does. The log and the databases are opened anew
  // later.
  void Kill();

  // Commits if the fence lets it, as an application on this node would.
  bool TryCommit(const std::string& database);
  // Small change sets with random content, in `database`. Returns the last index.
  LogIndex Commit(const std::string& database, int transactions = 1);
  LogIndex Drop(const std::string& database);
  // Removes all segments that hold nothing of use to this node, as time and maintenance do.
  void ForgetLog();

  // Before the start: the log forgets nothing. Otherwise it forgets as soon as it may.
  void KeepLog();

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  bool running() const { return node_ != nullptr; }
  Node& node() { return *node_; }
  ChangeLog& log() { return *log_; }
  PageStore& store() { return store_; }
  std::string directory() const { return directory_.path(); }
  // The status of one database; with an empty name when it is not there.
  DatabaseApplyStatus database(const std::string& name);

  ChangeLogOptions log_options;
  absl::Duration maintenance_interval = kMaintenanceInterval;

 private:
  absl::Status Start(NodeOptions options);

  const std::string id_;
  TempDirectory directory_;
  PageStore store_;
  std::unique_ptr<ChangeLog> log_;
  std::unique_ptr<Lease> lease_;
  CommitFence fence_;
  std::unique_ptr<Node> node_;
  int port_ = 0;
  std::atomic<std::uint64_t> random_;
};

// Waits until the replica has applied all that is in the primary's log, with equal databases.
bool Converges(TestNode& primary, TestNode& replica);

// Commits to some databases of a primary without a pause, until destruction.
class Writer {
 public:
  Writer(TestNode* primary, std::vector<std::string> databases);
  ~Writer();
  // Waits until so many more transactions were committed.
  void WaitFor(std::uint64_t transactions);

 private:
  std::atomic<bool> stop_ = false;
  std::atomic<std::uint64_t> done_ = 0;
  std::thread thread_;
};

}  // namespace echofs
