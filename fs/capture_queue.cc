#include "fs/capture_queue.h"

#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace echofs::fs {
namespace {

constexpr absl::Duration kRetryInterval = absl::Milliseconds(200);
// Work begins at once after a rest, and in steps of this length in a stream of commits: then a commit does
// not wake the thread, which would cost its writer more than the write.
constexpr absl::Duration kStep = absl::Microseconds(300);

}  // namespace

CaptureQueue::CaptureQueue() : thread_([this] { Run(); }) {}

CaptureQueue::~CaptureQueue() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

void CaptureQueue::Add(std::shared_ptr<DatabaseCapture> capture) {
  absl::MutexLock lock(&mutex_);
  ready_.push_back(std::move(capture));
}

void CaptureQueue::Run() {
  const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !ready_.empty();
  };
  while (true) {
    std::deque<std::shared_ptr<DatabaseCapture>> batch;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.AwaitWithTimeout(absl::Condition(&ready),
                              failed_.empty() ? absl::InfiniteDuration() : kRetryInterval);
      if (stopping_ && ready_.empty()) return;
      batch.swap(ready_);
    }
    for (auto& capture : std::exchange(failed_, {})) batch.push_back(std::move(capture));
    const absl::Time begin = absl::Now();
    for (const auto& capture : batch) {
      while (capture->LogPending()) {
      }
      if (capture->HasPending()) failed_.push_back(capture);
    }
    absl::SleepFor(begin + kStep - absl::Now());
  }
}

}  // namespace echofs::fs
