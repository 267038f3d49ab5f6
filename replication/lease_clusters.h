// What the lease server does, without the network: a LeaseTable for each cluster, with a clock (CLOCK_BOOTTIME), with
// LeaseStore behind it, and with threads that wait for changes.
//
// Why nobody learns of what a crash could undo: a call changes the table and stores the change under one mutex, and
// reads are under the same one. If storing fails, what is on disk is not known; the table is then loaded from there
// before it is used again, and the caller gets Unavailable. Why a restart gives nobody a term too early: renewals are
// not stored, so a loaded holder counts as having renewed at this moment, which is not before its last renewal. The
// end of a holder's time is stored before it is told.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <type_traits>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "replication/boot_time.h"
#include "replication/lease_store.h"
#include "replication/lease_table.h"

namespace echofs {

// Thread-safe. Errors are those of Lease.
class LeaseClusters {
 public:
  // Opens the store, as LeaseStore::Open.
  static absl::StatusOr<std::unique_ptr<LeaseClusters>> Open(const std::string& store_path);
  ~LeaseClusters();

  // Returns call(table, now) of the cluster `key`, an absl::Status or StatusOr, when what it did is durable.
  template <class Function>
  std::invoke_result_t<const Function&, LeaseTable&, absl::Duration> Call(const std::string& key,
                                                                          const Function& call)
      ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    const absl::StatusOr<Cluster*> cluster = Find(key);
    if (!cluster.ok()) return cluster.status();
    auto result = call((*cluster)->table, BootTime());
    if (absl::Status stored = Store(key, **cluster); !stored.ok()) return stored;
    return result;
  }

  // As Lease::WaitForChange. Asks `cancelled` now and then and returns Cancelled when it says so.
  absl::StatusOr<LeaseState> WaitForChange(const std::string& key, std::uint64_t version,
                                           absl::Duration timeout,
                                           const std::function<bool()>& cancelled)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Ends all waits, with Unavailable; the other calls go on working.
  void Stop() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Cluster {
    LeaseTable table;
    LeaseTenure stored;
    std::uint64_t told_version = 0;  // for which waiters were woken
    bool in_doubt = false;           // `table` is not what is on disk, perhaps
  };

  explicit LeaseClusters(std::unique_ptr<LeaseStore> store);
  absl::Status Load() ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<Cluster*> Find(const std::string& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Reload(const std::string& key, Cluster& cluster)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Makes a changed tenure durable, wakes those who wait for a change, sets the timer.
  absl::Status Store(const std::string& key, Cluster& cluster)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SetTimer() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ExpiryLoop() ABSL_LOCKS_EXCLUDED(mutex_);

  const std::uint64_t first_version_;  // another one in every process
  const int timer_;                    // a timerfd; the thread waits for it
  absl::Mutex mutex_;
  absl::CondVar changed_;
  const std::unique_ptr<LeaseStore> store_ ABSL_PT_GUARDED_BY(mutex_);
  std::map<std::string, Cluster> clusters_ ABSL_GUARDED_BY(mutex_);
  int waiters_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread expiry_;
};

}  // namespace echofs
