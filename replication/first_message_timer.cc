#include "replication/first_message_timer.h"

#include <fmt/format.h>

#include <utility>

#include "replication/limits.h"

namespace echofs {

FirstMessageTimer::FirstMessageTimer(std::function<void()> cancel)
    : thread_([this, cancel = std::move(cancel)] { Wait(cancel); }) {}

FirstMessageTimer::~FirstMessageTimer() { Stop().IgnoreError(); }

absl::Status FirstMessageTimer::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    arrived_ = true;
  }
  if (thread_.joinable()) thread_.join();
  absl::MutexLock lock(&mutex_);
  if (!expired_) return absl::OkStatus();
  return absl::DeadlineExceededError(
      fmt::format("the call said nothing for {} seconds", absl::ToInt64Seconds(kHelloTimeout)));
}

void FirstMessageTimer::Wait(const std::function<void()>& cancel) {
  {
    absl::MutexLock lock(&mutex_);
    if (mutex_.AwaitWithTimeout(absl::Condition(&arrived_), kHelloTimeout)) return;
    expired_ = true;
  }
  cancel();
}

}  // namespace echofs
