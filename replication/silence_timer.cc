#include "replication/silence_timer.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"

namespace echofs {

SilenceTimer::SilenceTimer(absl::Duration limit, std::function<void()> cancel)
    : limit_(limit),
      deadline_(absl::Now() + limit),
      thread_([this, cancel = std::move(cancel)] { Wait(cancel); }) {}

SilenceTimer::~SilenceTimer() { Stop().IgnoreError(); }

void SilenceTimer::Heard() {
  absl::MutexLock lock(&mutex_);
  deadline_ = absl::InfiniteFuture();
}

void SilenceTimer::Expect() {
  absl::MutexLock lock(&mutex_);
  deadline_ = absl::Now() + limit_;
}

absl::Status SilenceTimer::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopped_ = true;
  }
  if (thread_.joinable()) thread_.join();
  absl::MutexLock lock(&mutex_);
  if (!expired_) return absl::OkStatus();
  return absl::DeadlineExceededError(
      fmt::format("the call said nothing for {} seconds", absl::ToInt64Seconds(limit_)));
}

void SilenceTimer::Wait(const std::function<void()>& cancel) {
  {
    absl::MutexLock lock(&mutex_);
    while (!expired_) {
      // Messages do not wake this thread: no deadline that is set meanwhile comes before the limit has passed.
      const absl::Time look = std::min(deadline_, absl::Now() + limit_);
      if (mutex_.AwaitWithDeadline(absl::Condition(&stopped_), look)) return;
      expired_ = absl::Now() >= deadline_;
    }
  }
  cancel();
}

}  // namespace echofs
