// The thread that puts captured WAL commits into the log, off the application's path (design C9).
#pragma once

#include <deque>
#include <memory>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "fs/database_capture.h"

namespace echofs::fs {

// Thread-safe. A database whose commit fails is tried again every kRetryInterval; others go on.
class CaptureQueue {
 public:
  CaptureQueue();
  // Ends the thread; what is still captured stays in the WALs.
  ~CaptureQueue();
  // `capture` has one commit more to log.
  void Add(std::shared_ptr<DatabaseCapture> capture) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);

  absl::Mutex mutex_;
  std::deque<std::shared_ptr<DatabaseCapture>> ready_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  // Databases whose last attempt failed; of the thread alone.
  std::deque<std::shared_ptr<DatabaseCapture>> failed_;
  std::thread thread_;
};

}  // namespace echofs::fs
