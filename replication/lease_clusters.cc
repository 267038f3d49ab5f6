#include "replication/lease_clusters.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sys/random.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "replication/limits.h"
#include "replication/status_macros.h"

namespace echofs {
namespace {

std::uint64_t RandomVersion() {
  std::uint64_t version = 0;
  if (getrandom(&version, sizeof version, 0) != sizeof version) {
    version = static_cast<std::uint64_t>(absl::ToInt64Nanoseconds(BootTime()));
  }
  return version;
}

}  // namespace

LeaseClusters::LeaseClusters(std::unique_ptr<LeaseStore> store)
    : first_version_(RandomVersion()),
      timer_(timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC)),
      store_(std::move(store)) {
  ECHOFS_CHECK(timer_ >= 0);
}

LeaseClusters::~LeaseClusters() {
  Stop();
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
    SetTimer();
  }
  if (expiry_.joinable()) expiry_.join();
  close(timer_);
}

absl::StatusOr<std::unique_ptr<LeaseClusters>> LeaseClusters::Open(const std::string& store_path) {
  ECHOFS_ASSIGN_OR_RETURN(std::unique_ptr<LeaseStore> store, LeaseStore::Open(store_path));
  std::unique_ptr<LeaseClusters> clusters(new LeaseClusters(std::move(store)));
  ECHOFS_RETURN_IF_ERROR(clusters->Load());
  return clusters;
}

absl::Status LeaseClusters::Load() {
  absl::MutexLock lock(&mutex_);
  ECHOFS_ASSIGN_OR_RETURN(const auto leases, store_->LoadAll());
  for (const auto& [key, tenure] : leases) {
    Cluster cluster{LeaseTable(first_version_), tenure};
    cluster.table.Restore(tenure, BootTime());
    spdlog::info("lease {}: {}", key, DescribeLease(tenure.record, tenure.held));
    clusters_.emplace(key, std::move(cluster));
  }
  SetTimer();
  expiry_ = std::thread([this] { ExpiryLoop(); });
  return absl::OkStatus();
}

absl::StatusOr<LeaseClusters::Cluster*> LeaseClusters::Find(const std::string& key) {
  if (key.empty() || key.size() > kIdentitySizeMax) {
    return absl::InvalidArgumentError(
        fmt::format("lease.key must have 1 to {} bytes", kIdentitySizeMax));
  }
  auto found = clusters_.find(key);
  if (found == clusters_.end()) {
    if (clusters_.size() >= kLeaseClustersMax) {
      return absl::InvalidArgumentError(fmt::format(
          "this lease server has {} clusters and takes no more: lease.key {} is not one of them",
          clusters_.size(), key));
    }
    found = clusters_.emplace(key, Cluster{LeaseTable(first_version_), {}}).first;
  }
  if (found->second.in_doubt) ECHOFS_RETURN_IF_ERROR(Reload(key, found->second));
  return &found->second;
}

absl::Status LeaseClusters::Reload(const std::string& key, Cluster& cluster) {
  absl::StatusOr<std::map<std::string, LeaseTenure>> leases = store_->LoadAll();
  if (!leases.ok()) {
    return absl::UnavailableError(fmt::format("the lease server cannot read its data: {}",
                                              std::string(leases.status().message())));
  }
  cluster.stored = std::move((*leases)[key]);
  cluster.table.Restore(cluster.stored, BootTime());
  cluster.in_doubt = false;
  return absl::OkStatus();
}

absl::Status LeaseClusters::Store(const std::string& key, Cluster& cluster) {
  const LeaseTenure& tenure = cluster.table.tenure();
  if (tenure != cluster.stored) {
    if (absl::Status saved = store_->Save(key, tenure); !saved.ok()) {
      cluster.in_doubt = true;
      SetTimer();
      spdlog::error("lease {}: a change cannot be stored: {}", key, std::string(saved.message()));
      return absl::UnavailableError(
          fmt::format("the lease server cannot store a change: {}", std::string(saved.message())));
    }
    if (tenure.record.term != cluster.stored.record.term || tenure.held != cluster.stored.held) {
      spdlog::info("lease {}: {}", key, DescribeLease(tenure.record, tenure.held));
    }
    cluster.stored = tenure;
  }
  if (std::exchange(cluster.told_version, cluster.table.version()) != cluster.table.version()) {
    changed_.SignalAll();
  }
  SetTimer();
  return absl::OkStatus();
}

absl::StatusOr<LeaseState> LeaseClusters::WaitForChange(const std::string& key,
                                                        std::uint64_t version,
                                                        absl::Duration timeout,
                                                        const std::function<bool()>& cancelled) {
  absl::MutexLock lock(&mutex_);
  const absl::Duration deadline = BootTime() + std::min(timeout, kLeaseWaitMax);
  if (waiters_ >= kLeaseWaitersMax) {
    return absl::UnavailableError("too many nodes wait for changes at this lease server");
  }
  ECHOFS_ASSIGN_OR_RETURN(Cluster * cluster, Find(key));
  ++waiters_;
  absl::Status ended;
  // Who waits does not look for ends itself: the timer's thread does.
  while (ended.ok() && cluster->table.version() == version && BootTime() < deadline) {
    changed_.WaitWithTimeout(&mutex_, std::min(deadline - BootTime(), kStopCheckInterval));
    if (stopping_) ended = absl::UnavailableError("the lease server is stopping");
    if (cancelled()) ended = absl::CancelledError("the caller went away");
  }
  --waiters_;
  ECHOFS_RETURN_IF_ERROR(ended);
  ECHOFS_ASSIGN_OR_RETURN(cluster, Find(key));
  LeaseState state = cluster->table.Read(BootTime());
  ECHOFS_RETURN_IF_ERROR(Store(key, *cluster));
  return state;
}

void LeaseClusters::Stop() {
  absl::MutexLock lock(&mutex_);
  stopping_ = true;
  changed_.SignalAll();
}

void LeaseClusters::SetTimer() {
  absl::Duration next = absl::InfiniteDuration();
  for (const auto& [key, cluster] : clusters_) {
    next = std::min(
        next, cluster.in_doubt ? BootTime() + kLeaseStoreRetryDelay : cluster.table.NextExpiry());
  }
  if (ending_) next = absl::Nanoseconds(1);
  itimerspec when{};  // all zero: no timer
  if (next < absl::InfiniteDuration()) {
    when.it_value = absl::ToTimespec(std::max(next, absl::Nanoseconds(1)));
  }
  timerfd_settime(timer_, TFD_TIMER_ABSTIME, &when, nullptr);
}

void LeaseClusters::ExpiryLoop() {
  while (true) {
    std::uint64_t expirations = 0;
    if (read(timer_, &expirations, sizeof expirations) < 0 && errno != EINTR) return;
    absl::MutexLock lock(&mutex_);
    if (ending_) return;
    for (auto& [key, cluster] : clusters_) {
      if (cluster.in_doubt && !Reload(key, cluster).ok()) continue;
      cluster.table.Expire(BootTime());
      // Errors are in the log, and the cluster is in doubt.
      Store(key, cluster).IgnoreError();
    }
    SetTimer();
  }
}

}  // namespace echofs
