// Ends calls that do not begin: whoever reaches the port could hold threads of the server by them.
#pragma once

#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"

namespace echofs {

// Made before the first message is read, stopped after it. Of one thread; calls `cancel`, which makes the read end, on
// another one when kHelloTimeout has passed.
class FirstMessageTimer {
 public:
  explicit FirstMessageTimer(std::function<void()> cancel);
  ~FirstMessageTimer();
  FirstMessageTimer(const FirstMessageTimer&) = delete;
  FirstMessageTimer& operator=(const FirstMessageTimer&) = delete;

  // DeadlineExceeded when it was too late.
  absl::Status Stop() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Wait(const std::function<void()>& cancel) ABSL_LOCKS_EXCLUDED(mutex_);

  absl::Mutex mutex_;
  bool arrived_ ABSL_GUARDED_BY(mutex_) = false;
  bool expired_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace echofs
