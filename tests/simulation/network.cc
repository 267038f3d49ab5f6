#include "tests/simulation/network.h"

#include <algorithm>

namespace echofs::sim {
namespace {

constexpr Moment kResendInterval = 100 * kMillisecond;

}  // namespace

void Network::Cut(Endpoint from, Endpoint to, bool cut) {
  if (cut) {
    cut_.insert({from, to});
  } else {
    cut_.erase({from, to});
  }
}

Moment Network::Delay() {
  const bool slow = random_->Chance(quality_.long_delay_per_mille);
  return random_->Between(kMillisecond / 20, slow ? quality_.long_delay_max : quality_.delay_max);
}

void Network::SendDatagram(Endpoint from, Endpoint to, const std::function<void()>& deliver) {
  const int copies = random_->Chance(quality_.duplicate_per_mille) ? 2 : 1;
  for (int i = 0; i < copies; ++i) {
    if (random_->Chance(quality_.loss_per_mille)) continue;
    // What comes a second time may come after everything else.
    const Moment delay = i == 0 ? Delay() : random_->Between(0, quality_.long_delay_max);
    scheduler_->After(delay, [this, from, to, deliver] {
      if (!IsCut(from, to)) deliver();
    });
  }
}

void Network::Send(StreamId stream, Endpoint from, Endpoint to, Message message) {
  const Key key{stream, from};
  Direction& direction = directions_[key];
  direction.to = to;
  if (direction.broken) return;
  if (random_->Chance(quality_.break_per_mille)) {
    Break(stream, from, to);
    return;
  }
  Moment arrival = scheduler_->now() + Delay();
  if (!direction.queue.empty()) arrival = std::max(arrival, direction.queue.back().first);
  direction.queue.emplace_back(arrival, std::move(message));
  if (direction.pumping) return;
  direction.pumping = true;
  scheduler_->At(arrival, [this, key] { Pump(key); });
}

void Network::Pump(Key key) {
  Direction& direction = directions_[key];
  direction.pumping = false;
  if (direction.queue.empty()) return;
  if (IsCut(key.second, direction.to)) {
    direction.pumping = true;
    scheduler_->After(kResendInterval, [this, key] { Pump(key); });
    return;
  }
  Message message = std::move(direction.queue.front().second);
  direction.queue.pop_front();
  if (!direction.queue.empty()) {
    direction.pumping = true;
    scheduler_->At(direction.queue.front().first, [this, key] { Pump(key); });
  }
  callbacks_.message(direction.to, key.second, key.first, std::move(message));
}

void Network::Break(StreamId stream, Endpoint a, Endpoint b) {
  for (const auto& [from, to] : {std::pair(a, b), std::pair(b, a)}) {
    Direction& direction = directions_[{stream, from}];
    direction.to = to;
    direction.broken = true;
    direction.queue.clear();
    if (random_->Chance(700)) {
      scheduler_->After(Delay(), [this, stream, end = to] { callbacks_.broken(end, stream); });
    }
  }
}

}  // namespace echofs::sim
