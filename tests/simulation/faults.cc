#include "tests/simulation/faults.h"

#include <algorithm>
#include <numeric>

#include "tests/simulation/lease_service.h"
#include "tests/simulation/process.h"

namespace echofs::sim {
namespace {

constexpr Moment kGoodDiskDelay = 2 * kMillisecond;

}  // namespace

const char* FaultName(FaultKind kind) {
  switch (kind) {
    case FaultKind::kCrash:
      return "crash";
    case FaultKind::kPowerLoss:
      return "power loss";
    case FaultKind::kPowerLossInIo:
      return "power loss between two operations";
    case FaultKind::kPause:
      return "pause";
    case FaultKind::kCutNodes:
      return "cut between nodes";
    case FaultKind::kCutLease:
      return "cut to or from the lease service";
    case FaultKind::kIsolate:
      return "isolation";
    case FaultKind::kLeaseDown:
      return "lease service down";
    case FaultKind::kSlowDisk:
      return "slow disk";
    case FaultKind::kFullDisk:
      return "full disk";
    case FaultKind::kSlowNetwork:
      return "slow network";
    case FaultKind::kHandoff:
      return "handoff";
    case FaultKind::kPromote:
      return "promote";
    case FaultKind::kShutdown:
      return "shutdown";
    case FaultKind::kCount:
      break;
  }
  return "";
}

void Faults::Start() {
  world_->network.quality() = world_->options.network;
  world_->scheduler.After(kSecond, [this] { Next(); });
  world_->scheduler.At(world_->options.faults_end, [this] { MendAll(); });
}

void Faults::Next() {
  if (world_->scheduler.now() >= world_->options.faults_end) return;
  Make(Choose());
  world_->scheduler.After(random().Between(20 * kMillisecond, world_->options.fault_interval_max),
                          [this] { Next(); });
}

// Everything works from now on.
void Faults::MendAll() {
  world_->Trace("-- the faults are over");
  world_->faults_over = true;
  world_->network.HealLinks();
  world_->network.quality() = NetworkQuality();
  world_->lease->Start();
  for (const auto& node : world_->nodes) {
    node->disk().SetFull(false);
    node->disk().PowerOffAfter(0);
    node->disk_delay_max = kGoodDiskDelay;
    node->Resume();
    node->Start();
  }
}

FaultKind Faults::Choose() {
  const std::vector<int>& weights = world_->options.fault_weights;
  const int sum = std::accumulate(weights.begin(), weights.end(), 0);
  auto at = static_cast<int>(random().Below(static_cast<std::uint64_t>(sum)));
  int kind = 0;
  while (at >= weights[kind]) at -= weights[kind++];
  return static_cast<FaultKind>(kind);
}

SimNode& Faults::PickNode() {
  if (random().Chance(400)) {
    for (const auto& node : world_->nodes) {
      if (node->process() != nullptr && node->process()->serving()) return *node;
    }
  }
  return *world_->nodes[random().Below(world_->nodes.size())];
}

int Faults::PickOther(int node) {
  const int nodes = world_->options.nodes;
  return (node + 1 + static_cast<int>(random().Below(nodes - 1))) % nodes;
}

void Faults::Mend(Moment longest, std::function<void()> mend) {
  world_->scheduler.After(random().Between(10 * kMillisecond, longest),
                          [this, mend = std::move(mend)] {
                            if (!world_->faults_over) mend();
                          });
}

void Faults::Cut(Endpoint from, Endpoint to) {
  ++world_->counts.cuts;
  world_->Trace("-- cut: {} to {}", from, to);
  world_->network.Cut(from, to, true);
  Mend(2 * ttl(), [this, from, to] { world_->network.Cut(from, to, false); });
}

void Faults::Kill(SimNode* node, bool power_loss) {
  if (node->process() == nullptr) return;
  ++(power_loss ? world_->counts.power_losses : world_->counts.crashes);
  node->Kill(power_loss);
  Mend(random().Chance(500) ? 300 * kMillisecond : 2 * ttl(), [node] { node->Start(); });
}

void Faults::Isolate(SimNode* node) {
  const bool in = random().Chance(700);
  const bool out = !in || random().Chance(700);
  for (Endpoint other = 0; other <= world_->options.nodes; ++other) {
    if (other == node->number()) continue;
    if (out) Cut(node->number(), other);
    if (in) Cut(other, node->number());
  }
}

void Faults::Make(FaultKind kind) {
  SimNode* node = &PickNode();
  world_->Trace("-- fault: {} ({})", FaultName(kind), node->id());
  const Endpoint lease = world_->lease_endpoint();
  switch (kind) {
    case FaultKind::kCrash:
      return Kill(node, false);
    case FaultKind::kPowerLoss:
      return Kill(node, true);
    case FaultKind::kPowerLossInIo:
      if (node->process() != nullptr) {
        node->disk().PowerOffAfter(1 + random().Below(random().Chance(500) ? 5 : 40));
      }
      return;
    case FaultKind::kPause:
      node->Pause();
      return Mend(random().Chance(500) ? ttl() / 2 : 3 * ttl(), [node] { node->Resume(); });
    case FaultKind::kCutNodes:
      return Cut(node->number(), PickOther(node->number()));
    case FaultKind::kCutLease:
      return random().Chance(500) ? Cut(node->number(), lease) : Cut(lease, node->number());
    case FaultKind::kIsolate:
      return Isolate(node);
    case FaultKind::kLeaseDown:
      world_->lease->Stop();
      return Mend(random().Chance(500) ? ttl() / 2 : 2 * ttl(), [this] { world_->lease->Start(); });
    case FaultKind::kSlowDisk:
      node->disk_delay_max = random().Between(100, 3000) * kMillisecond;
      return Mend(3 * ttl(), [node] { node->disk_delay_max = kGoodDiskDelay; });
    case FaultKind::kFullDisk:
      ++world_->counts.disks_full;
      node->disk().SetFull(true);
      return Mend(2 * ttl(), [node] { node->disk().SetFull(false); });
    case FaultKind::kSlowNetwork:
      world_->network.quality().delay_max = random().Between(50, 500) * kMillisecond;
      return Mend(2 * ttl(), [this] {
        world_->network.quality().delay_max = world_->options.network.delay_max;
      });
    default:
      return Command(kind, node);
  }
}

void Faults::Command(FaultKind kind, SimNode* node) {
  if (node->process() == nullptr) return;
  if (kind == FaultKind::kHandoff) {
    const std::string target =
        random().Chance(500) ? "" : world_->nodes[PickOther(node->number())]->id();
    node->Deliver([target](Process& process) { process.Handoff(target); });
  } else if (kind == FaultKind::kPromote) {
    const bool force = world_->options.forced_promotions && random().Chance(500);
    node->Deliver([force](Process& process) { process.Promote(force); });
  } else {
    node->Deliver([](Process& process) { process.Shutdown(); });
  }
}

}  // namespace echofs::sim
