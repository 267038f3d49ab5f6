#include "replication/commit_acks.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "replication/failpoint.h"

namespace echofs {
namespace {

// How exact the timeout is.
constexpr absl::Duration kTimeoutStep = absl::Milliseconds(100);

}  // namespace

CommitAcks::CommitAcks(absl::Duration timeout, Metrics* metrics)
    : timeout_(timeout), metrics_(metrics), timeouts_([this] { TimeoutLoop(); }) {}

CommitAcks::~CommitAcks() {
  Close("this node is stopping");
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  timeouts_.join();
}

void CommitAcks::Wait(LogIndex index, Done done) {
  absl::Status status;
  {
    absl::MutexLock lock(&mutex_);
    if (!open_) {
      status = absl::UnavailableError(
          fmt::format("a commit was not acknowledged by the nodes in sync: {}", closed_why_));
    } else if (index > acknowledged_) {
      Failpoint("commit.ack.before");
      waiters_.emplace(index, Waiter{absl::Now(), std::move(done)});
      return;
    }
  }
  if (!status.ok()) return Fail({std::move(done)}, status);
  metrics_->sync_wait.Observe(absl::ZeroDuration());
  done(status);
}

void CommitAcks::Open() {
  absl::MutexLock lock(&mutex_);
  open_ = true;
  acknowledged_ = {};
}

void CommitAcks::Advance(LogIndex index) {
  std::vector<Done> ready;
  {
    absl::MutexLock lock(&mutex_);
    if (!open_ || index <= acknowledged_) return;
    acknowledged_ = index;
    const auto end = waiters_.upper_bound(index);
    const absl::Time now = absl::Now();
    for (auto waiter = waiters_.begin(); waiter != end; ++waiter) {
      metrics_->sync_wait.Observe(now - waiter->second.since);
      ready.push_back(std::move(waiter->second.done));
    }
    waiters_.erase(waiters_.begin(), end);
  }
  if (!ready.empty()) Failpoint("commit.ack.after");
  for (const Done& done : ready) done(absl::OkStatus());
}

void CommitAcks::Close(const std::string& why) {
  std::vector<Done> failed;
  {
    absl::MutexLock lock(&mutex_);
    open_ = false;
    closed_why_ = why;
    for (auto& [index, waiter] : waiters_) failed.push_back(std::move(waiter.done));
    waiters_.clear();
  }
  Fail(failed, absl::UnavailableError(
                   fmt::format("a commit was not acknowledged by the nodes in sync: {}", why)));
}

void CommitAcks::Fail(const std::vector<Done>& waiting, const absl::Status& status) {
  metrics_->sync_wait_failures.Add(waiting.size());
  for (const Done& done : waiting) done(status);
}

bool CommitAcks::waiting() const {
  absl::MutexLock lock(&mutex_);
  return !waiters_.empty();
}

std::vector<CommitAcks::Done> CommitAcks::TakeExpired(absl::Time now) {
  std::vector<Done> expired;
  for (auto waiter = waiters_.begin(); waiter != waiters_.end();) {
    if (waiter->second.since + timeout_ > now) {
      ++waiter;
      continue;
    }
    expired.push_back(std::move(waiter->second.done));
    waiter = waiters_.erase(waiter);
  }
  return expired;
}

void CommitAcks::TimeoutLoop() {
  while (true) {
    std::vector<Done> expired;
    {
      absl::MutexLock lock(&mutex_);
      const auto busy = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stopping_ || !waiters_.empty();
      };
      mutex_.Await(absl::Condition(&busy));
      if (mutex_.AwaitWithTimeout(absl::Condition(&stopping_), std::min(timeout_, kTimeoutStep))) {
        return;
      }
      expired = TakeExpired(absl::Now());
    }
    Fail(expired, absl::UnavailableError(fmt::format(
                      "a commit was not acknowledged by the nodes in sync within {} (ack-timeout)",
                      absl::FormatDuration(timeout_))));
  }
}

}  // namespace echofs
