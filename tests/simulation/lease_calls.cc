#include "tests/simulation/lease_calls.h"

#include "tests/simulation/judge.h"
#include "tests/simulation/lease_service.h"
#include "tests/simulation/process.h"

namespace echofs::sim {
namespace {

constexpr std::size_t kCallsAtOnce = 3;
constexpr Moment kWatchTimeout = 3 * kSecond;
constexpr Moment kWatchRetry = 200 * kMillisecond;

}  // namespace

void LeaseCalls::Make(const LeaseCall& call) {
  if (call.kind == LeaseCall::Kind::kAcquire) process_->world().judge->OnAcquire(*process_);
  queue_.push_back(call);
  SendNext();
}

void LeaseCalls::SendNext() {
  while (running_.size() < kCallsAtOnce && !queue_.empty()) {
    const LeaseCall call = queue_.front();
    queue_.pop_front();
    running_[call.id] = call;
    Send(call);
    process_->After(process_->world().options.call_timeout, [this, id = call.id] {
      Finish(id, absl::UnavailableError("the lease service did not answer in time"));
    });
  }
}

void LeaseCalls::Send(const LeaseCall& call) {
  World* world = &process_->world();
  if (call.kind != LeaseCall::Kind::kAnnounce && call.kind != LeaseCall::Kind::kRenew) {
    world->Trace("{}: call {} of kind {} is sent", process_->node().id(), call.id,
                 static_cast<int>(call.kind));
  }
  SimNode* node = &process_->node();
  const std::uint64_t incarnation = node->incarnation();
  const auto reply = [this, world, node, incarnation,
                      id = call.id](const absl::StatusOr<LeaseRecord>& result) {
    world->network.SendDatagram(
        world->lease_endpoint(), node->number(), [this, node, incarnation, id, result] {
          node->Execute(incarnation, [this, id, result](Process&) { Finish(id, result); });
        });
  };
  world->network.SendDatagram(node->number(), world->lease_endpoint(), [world, node, call, reply] {
    world->lease->Call(call, node->id(), node->address(), reply);
  });
}

void LeaseCalls::Finish(std::uint64_t id, const absl::StatusOr<LeaseRecord>& reply) {
  const auto found = running_.find(id);
  if (found == running_.end()) return;  // it is too late, or the second time
  World& world = process_->world();
  if (world.trace && found->second.kind != LeaseCall::Kind::kAnnounce &&
      (found->second.kind != LeaseCall::Kind::kRenew || !reply.ok())) {
    world.Trace("{}: call {} of kind {}: {}", process_->node().id(), id,
                static_cast<int>(found->second.kind), reply.status().ToString());
  }
  running_.erase(found);
  process_->machine().OnLeaseReply(process_->now(), id, reply);
  SendNext();
}

void LeaseCalls::Watch(std::uint64_t version, Moment timeout) {
  World* world = &process_->world();
  SimNode* node = &process_->node();
  const std::uint64_t incarnation = node->incarnation();
  const std::uint64_t number = ++watch_number_;
  const auto reply = [this, world, node, incarnation, number](const LeaseState& state) {
    world->network.SendDatagram(
        world->lease_endpoint(), node->number(), [this, node, incarnation, number, state] {
          node->Execute(incarnation, [this, number, state](Process&) { OnState(number, state); });
        });
  };
  world->network.SendDatagram(
      node->number(), world->lease_endpoint(),
      [world, version, timeout, reply] { world->lease->Watch(version, timeout, reply); });
  process_->After(timeout + world->options.call_timeout, [this, number] {
    if (number != watch_number_) return;
    ++watch_number_;  // what still comes of it is too old
    process_->After(kWatchRetry, [this] { Watch(0, 0); });
  });
}

void LeaseCalls::OnState(std::uint64_t number, const LeaseState& state) {
  if (number != watch_number_) return;
  process_->machine().OnLeaseState(process_->now(), state);
  Watch(state.version, kWatchTimeout);
}

}  // namespace echofs::sim
