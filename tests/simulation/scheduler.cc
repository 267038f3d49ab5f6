#include "tests/simulation/scheduler.h"

#include <algorithm>
#include <utility>

namespace echofs::sim {

bool Scheduler::Later(const Event& a, const Event& b) {
  return a.moment != b.moment ? a.moment > b.moment : a.number > b.number;
}

void Scheduler::At(Moment moment, std::function<void()> event) {
  heap_.push_back({std::max(moment, now_), ++last_number_, std::move(event)});
  std::push_heap(heap_.begin(), heap_.end(), Later);
}

bool Scheduler::RunNext() {
  if (heap_.empty()) return false;
  std::pop_heap(heap_.begin(), heap_.end(), Later);
  Event event = std::move(heap_.back());
  heap_.pop_back();
  now_ = event.moment;
  ++steps_;
  event.run();
  return true;
}

}  // namespace echofs::sim
