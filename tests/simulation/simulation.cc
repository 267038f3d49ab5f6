#include "tests/simulation/simulation.h"

#include "tests/simulation/faults.h"
#include "tests/simulation/judge.h"
#include "tests/simulation/lease_service.h"
#include "tests/simulation/process.h"

namespace echofs::sim {
namespace {

constexpr std::uint64_t kStepsMax = 3'000'000;
constexpr Moment kCheckInterval = 50 * kMillisecond;
constexpr std::uint64_t kCommitsAfterFaults = 3;

// After the faults: clients commit again, then they end, and all nodes become equal, within a bounded time.
class Recovery {
 public:
  explicit Recovery(World* world) : world_(world) {}

  void Start() {
    acknowledged_before_ = world_->counts.acknowledged;
    deadline_ =
        world_->scheduler.now() + 10 * absl::ToInt64Nanoseconds(world_->options.ttl) + 10 * kSecond;
    Check();
  }
  bool done() const { return done_; }

 private:
  void Check() {
    if (!world_->quiet &&
        world_->counts.acknowledged >= acknowledged_before_ + kCommitsAfterFaults) {
      world_->Trace("-- the clients end");
      world_->quiet = true;
    }
    const std::string why = world_->quiet ? world_->judge->WhyNotEqual() : "nothing is committed";
    if (why.empty()) {
      world_->judge->CheckEnd();
      done_ = true;
    } else if (world_->scheduler.now() > deadline_) {
      world_->Fail("J10: the cluster does not recover: " + why);
    } else {
      world_->scheduler.After(kCheckInterval, [this] { Check(); });
    }
  }

  World* const world_;
  std::uint64_t acknowledged_before_ = 0;
  Moment deadline_ = 0;
  bool done_ = false;
};

void Build(World* world) {
  for (int i = 0; i < world->options.nodes; ++i) {
    world->nodes.push_back(std::make_unique<SimNode>(world, i));
  }
  world->lease = std::make_unique<LeaseService>(world);
  world->judge = std::make_unique<Judge>(world);
  Network::Callbacks callbacks;
  callbacks.message = [world](Endpoint to, Endpoint from, StreamId stream, Message message) {
    world->nodes[to]->Deliver([from, stream, message = std::move(message)](Process& process) {
      process.OnMessage(from, stream, message);
    });
  };
  callbacks.broken = [world](Endpoint to, StreamId stream) {
    world->nodes[to]->Deliver([stream](Process& process) { process.OnBroken(stream); });
  };
  world->network.SetCallbacks(std::move(callbacks));
  for (const auto& node : world->nodes) {
    world->scheduler.After(world->random.Between(0, 500 * kMillisecond),
                           [node = node.get()] { node->Start(); });
  }
}

}  // namespace

RunResult RunSeed(std::uint64_t seed, bool trace, bool sqlite) {
  World world(seed);
  world.trace = trace;
  world.options.sqlite = sqlite;
  Build(&world);
  Faults faults(&world);
  faults.Start();
  Recovery recovery(&world);
  world.scheduler.At(world.options.faults_end, [&recovery] { recovery.Start(); });
  while (!world.failed() && !recovery.done() && world.scheduler.RunNext()) {
    if (world.scheduler.steps() > kStepsMax) world.Fail("the run has no end");
  }
  world.counts.steps = world.scheduler.steps();
  return {world.failure, Describe(world.options), world.counts, world.digest};
}

}  // namespace echofs::sim
