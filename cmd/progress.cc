#include "cmd/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "absl/time/clock.h"

namespace echofs::cmd {
namespace {

constexpr int kBarWidth = 30;  // characters

std::string Text(const std::string& what, std::uint64_t done, std::uint64_t total,
                 absl::Duration elapsed, bool bar) {
  if (total == 0) return fmt::format("{}: {} s", what, absl::ToInt64Seconds(elapsed));
  const double part = std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
  const std::string amounts =
      fmt::format("{:.0f}% ({} of {})", 100 * part, BytesText(done), BytesText(total));
  if (!bar) return fmt::format("{}: {}", what, amounts);
  const int full = static_cast<int>(part * kBarWidth);
  return fmt::format("{} [{}{}] {}", what, std::string(static_cast<std::size_t>(full), '#'),
                     std::string(static_cast<std::size_t>(kBarWidth - full), ' '), amounts);
}

ProgressOptions OptionsOfStderr() {
  ProgressOptions options;
  options.terminal = ::isatty(STDERR_FILENO) == 1;
  return options;
}

}  // namespace

Progress::Progress(const std::string& what) : Progress(what, OptionsOfStderr()) {}

Progress::Progress(const std::string& what, const ProgressOptions& options)
    : options_(options), what_(what), began_(absl::Now()), thread_([this] { Loop(); }) {}

Progress::~Progress() {
  {
    absl::MutexLock lock(&mutex_);
    ended_ = true;
  }
  thread_.join();
  absl::MutexLock lock(&mutex_);
  Clear();
}

void Progress::Begin(const std::string& what) {
  absl::MutexLock lock(&mutex_);
  what_ = what;
  began_ = absl::Now();
  done_ = 0;
  total_ = 0;
}

void Progress::Set(std::uint64_t done, std::uint64_t total) {
  done_ = done;
  total_ = total;
}

void Progress::Loop() {
  absl::MutexLock lock(&mutex_);
  absl::Duration wait = options_.first_after;
  while (!mutex_.AwaitWithTimeout(absl::Condition(&ended_), wait)) {
    Draw();
    wait = options_.terminal ? options_.bar_interval : options_.line_interval;
  }
}

void Progress::Draw() {
  const std::string text = Text(what_, done_, total_, absl::Now() - began_, options_.terminal);
  Clear();
  std::fprintf(options_.stream, options_.terminal ? "%s" : "%s\n", text.c_str());
  std::fflush(options_.stream);
  drawn_ = options_.terminal;
}

void Progress::Clear() {
  if (!drawn_) return;
  std::fputs("\r\x1b[K", options_.stream);
  std::fflush(options_.stream);
  drawn_ = false;
}

std::string BytesText(std::uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes);
  const char* unit = "B";
  for (const char* next : {"KiB", "MiB", "GiB", "TiB"}) {
    if (value < 1024) break;
    value /= 1024;
    unit = next;
  }
  return fmt::format("{:.1f} {}", value, unit);
}

}  // namespace echofs::cmd
