#include "fs/mount.h"

#include <fmt/format.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "fs/mount_operations.h"
#include "fs/thread_placement.h"

namespace echofs::fs {
namespace {

constexpr int kWorkerThreads = 8;
constexpr int kWakeSignal = SIGUSR2;

class FuseMount final : public Mount {
 public:
  FuseMount(FileSystem* file_system, std::string mount_point, int threads, FuseMetrics* metrics)
      : workers_(std::make_unique<WorkerPool>(kWorkerThreads)),
        mount_point_(std::move(mount_point)),
        thread_count_(threads) {
    context_.file_system = file_system;
    context_.workers = workers_.get();
    context_.metrics = metrics;
    context_.threads = threads;
  }

  absl::Status Open(int descriptor) {
    char program[] = "echofs";
    char* arguments[] = {program, nullptr};
    fuse_args args = FUSE_ARGS_INIT(1, arguments);
    session_ = fuse_session_new(&args, &MountOperations(), sizeof(fuse_lowlevel_ops), &context_);
    if (session_ == nullptr) return absl::InternalError("libfuse cannot make a session");
    if (fuse_session_mount(session_, fmt::format("/dev/fd/{}", descriptor).c_str()) != 0) {
      return absl::InternalError("libfuse does not take the descriptor of /dev/fuse");
    }
    page_cache_.emplace(session_);
    context_.page_cache = &*page_cache_;
    context_.file_system->SetKernel(&*page_cache_, mount_point_);
    struct sigaction wake {};
    wake.sa_handler = [](int) {};
    sigaction(kWakeSignal, &wake, nullptr);
    running_ = thread_count_;
    for (int i = 0; i < thread_count_; ++i) threads_.emplace_back([this] { Serve(); });
    return absl::OkStatus();
  }

  ~FuseMount() override {
    Stop();
    if (session_ != nullptr) fuse_session_destroy(session_);
  }

  void Stop() override {
    context_.stopping = true;
    while (context_.repairs != 0) absl::SleepFor(absl::Milliseconds(1));
    if (session_ != nullptr) fuse_session_exit(session_);
    // Threads that wait for a request are woken by a signal until they have seen that it is over.
    while (running_.load() != 0) {
      for (std::thread& thread : threads_) pthread_kill(thread.native_handle(), kWakeSignal);
      absl::SleepFor(absl::Milliseconds(1));
    }
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    workers_.reset();  // sends the replies that are due
  }

  PageCache* page_cache() override { return &*page_cache_; }
  void WaitUntilEnded() override { ended_.WaitForNotification(); }

 private:
  void Serve() {
    fuse_buf buffer{};
    ThreadPlacement placement(placement_);
    while (fuse_session_exited(session_) == 0) {
      const int n = fuse_session_receive_buf(session_, &buffer);
      if (n == -EINTR || n == -EAGAIN) continue;
      if (n <= 0) break;
      placement.OnRequest(buffer.mem, static_cast<std::size_t>(n));
      if (context_.metrics != nullptr) {
        context_.metrics->CountRequest(buffer.mem, static_cast<std::size_t>(n));
      }
      fuse_session_process_buf(session_, &buffer);
    }
    std::free(buffer.mem);
    bool expected = false;
    if (notified_.compare_exchange_strong(expected, true)) ended_.Notify();
    --running_;
  }

  MountContext context_;
  std::unique_ptr<WorkerPool> workers_;
  const std::string mount_point_;
  const int thread_count_;
  const PlacementMode placement_ = PlacementModeOfProcess();
  fuse_session* session_ = nullptr;
  std::optional<KernelPageCache> page_cache_;
  std::vector<std::thread> threads_;
  std::atomic<int> running_{0};
  std::atomic<bool> notified_{false};
  absl::Notification ended_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Mount>> Mount::Start(const MountOptions& options,
                                                    FileSystem* file_system) {
  int threads = options.threads;
  if (threads <= 0) threads = std::max(2, static_cast<int>(std::thread::hardware_concurrency()));
  auto mount =
      std::make_unique<FuseMount>(file_system, options.mount_point, threads, options.metrics);
  if (absl::Status opened = mount->Open(options.fuse_descriptor); !opened.ok()) return opened;
  return mount;
}

}  // namespace echofs::fs
