// Time of a simulated run: events in the order of their moments, one after the other, nothing in between.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace echofs::sim {

// Nanoseconds of true time since the start of the run; no node's clock shows it.
using Moment = std::int64_t;
inline constexpr Moment kMillisecond = 1'000'000;
inline constexpr Moment kSecond = 1000 * kMillisecond;

// Events of one moment happen in the order in which they were given.
class Scheduler {
 public:
  Moment now() const { return now_; }
  // A moment that has passed means now.
  void At(Moment moment, std::function<void()> event);
  void After(Moment delay, std::function<void()> event) { At(now_ + delay, std::move(event)); }
  // Runs the next event; false when there is none.
  bool RunNext();
  // Moment of the next event; `now` when there is none.
  Moment next() const { return heap_.empty() ? now_ : heap_.front().moment; }
  std::uint64_t steps() const { return steps_; }

 private:
  struct Event {
    Moment moment;
    std::uint64_t number;
    std::function<void()> run;
  };
  static bool Later(const Event& a, const Event& b);

  Moment now_ = 0;
  std::uint64_t last_number_ = 0;
  std::uint64_t steps_ = 0;
  std::vector<Event> heap_;
};

}  // namespace echofs::sim
