#include "tests/simulation/sim_node.h"

#include <fmt/format.h>

#include "tests/simulation/judge.h"
#include "tests/simulation/process.h"

namespace echofs::sim {

SimNode::SimNode(World* world, int number)
    : world_(world),
      number_(number),
      id_(fmt::format("n{}", number)),
      clock_(world->options.clock_start[number], world->options.clock_ppm[number]),
      disk_(&world->random) {}

SimNode::~SimNode() = default;

int SimNode::NumberOf(const std::string& address) {
  return address.size() >= 2 && address[0] == 'n' ? address[1] - '0' : -1;
}

void SimNode::Start() {
  if (process_ != nullptr) return;
  ++incarnation_;
  process_ = std::make_unique<Process>(world_, this);
  const absl::Status status = process_->Start();
  if (!disk_.powered()) {
    Kill(true);
    StartLater();
    return;
  }
  if (!status.ok()) {
    Kill(false);
    if (!absl::IsResourceExhausted(status)) {
      world_->Fail(fmt::format("{} cannot start: {}", id_, status.ToString()));
    }
    StartLater();
    return;
  }
  world_->Trace("{}: started", id_);
  Deliver([](Process& process) { process.Begin(); });
}

void SimNode::StartLater() {
  world_->scheduler.After(world_->random.Between(kMillisecond, kSecond), [this] { Start(); });
}

void SimNode::Kill(bool power_loss) {
  if (process_ == nullptr) return;
  world_->Trace("{}: {}", id_, power_loss ? "lost its power" : "ended");
  process_ = nullptr;
  ++incarnation_;
  paused_ = false;
  waiting_.clear();
  lost_power_ = power_loss;
  if (power_loss) {
    disk_.PowerLoss();
  } else {
    disk_.Revive();
  }
}

void SimNode::Pause() {
  if (process_ == nullptr || paused_) return;
  world_->Trace("{}: paused", id_);
  ++world_->counts.pauses;
  paused_ = true;
}

void SimNode::Resume() {
  if (!paused_) return;
  world_->Trace("{}: goes on", id_);
  paused_ = false;
  std::vector<Event> events = std::exchange(waiting_, {});
  const std::uint64_t incarnation = incarnation_;
  for (const Event& event : events) Execute(incarnation, event);
}

void SimNode::After(Moment delay, Event event) {
  world_->scheduler.After(delay, [this, incarnation = incarnation_, event = std::move(event)] {
    Execute(incarnation, event);
  });
}

void SimNode::AtTime(absl::Time time, Event event) {
  const Moment moment = clock_.MomentOf(absl::ToUnixNanos(time));
  After(moment - world_->scheduler.now(), std::move(event));
}

void SimNode::Execute(std::uint64_t incarnation, const Event& event) {
  if (incarnation != incarnation_ || process_ == nullptr) return;
  if (paused_) {
    waiting_.push_back(event);
    return;
  }
  world_->Mix(static_cast<std::uint64_t>(world_->scheduler.now()) * 16 + number_);
  event(*process_);
  if (disk_.powered()) process_->Settle();
  if (!disk_.powered()) {
    ++world_->counts.power_losses;
    Kill(true);
    StartLater();
  } else if (process_->ended()) {
    Kill(false);
    StartLater();
  }
  world_->judge->AfterStep();
}

}  // namespace echofs::sim
