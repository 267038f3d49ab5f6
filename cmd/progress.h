// Shows on stderr how far something is that takes long.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace echofs::cmd {

struct ProgressOptions {
  std::FILE* stream = stderr;  // not owned
  bool terminal = false;       // a bar in one line; else a line every now and then
  absl::Duration first_after = absl::Seconds(1);
  absl::Duration bar_interval = absl::Milliseconds(100);
  absl::Duration line_interval = absl::Seconds(5);
};

// Thread-safe. A thread of its own draws, so that steps that say nothing for long are shown as well.
class Progress {
 public:
  // Begins the first step. The terminal is asked whether it is one.
  explicit Progress(const std::string& what);
  Progress(const std::string& what, const ProgressOptions& options);
  // Takes the bar away.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // The next step, which is nowhere yet.
  void Begin(const std::string& what) ABSL_LOCKS_EXCLUDED(mutex_);
  // In bytes; of a total of 0 only the time is shown.
  void Set(std::uint64_t done, std::uint64_t total);

 private:
  void Loop() ABSL_LOCKS_EXCLUDED(mutex_);
  void Draw() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Clear() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const ProgressOptions options_;
  std::atomic<std::uint64_t> done_ = 0;
  std::atomic<std::uint64_t> total_ = 0;
  absl::Mutex mutex_;
  std::string what_ ABSL_GUARDED_BY(mutex_);
  absl::Time began_ ABSL_GUARDED_BY(mutex_);
  bool drawn_ ABSL_GUARDED_BY(mutex_) = false;  // there is a bar to take away
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

// "12.3 MiB", for people.
std::string BytesText(std::uint64_t bytes);

}  // namespace echofs::cmd
