// Ends calls whose caller says nothing: whoever reaches the port could hold threads of the server by them.
#pragma once

#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace echofs {

// Made before the first message is read, stopped after the last one. Of one thread; calls `cancel`, which makes the read
// end, on another one when a message was waited for longer than `limit`.
class SilenceTimer {
 public:
  SilenceTimer(absl::Duration limit, std::function<void()> cancel);
  ~SilenceTimer();
  SilenceTimer(const SilenceTimer&) = delete;
  SilenceTimer& operator=(const SilenceTimer&) = delete;

  // A message has come. Until Expect() what passes is not the caller's time.
  void Heard() ABSL_LOCKS_EXCLUDED(mutex_);
  // The next one is waited for; the first one is from the start.
  void Expect() ABSL_LOCKS_EXCLUDED(mutex_);
  // DeadlineExceeded when it was too late.
  absl::Status Stop() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Wait(const std::function<void()>& cancel) ABSL_LOCKS_EXCLUDED(mutex_);

  const absl::Duration limit_;
  absl::Mutex mutex_;
  absl::Time deadline_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  bool expired_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace echofs
