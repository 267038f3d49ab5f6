// A machine of a simulated run: its disk, its clock, and the process that runs on it, if one does.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/simulation/sim_storage.h"
#include "tests/simulation/world.h"

namespace echofs::sim {

class Process;

class SimNode {
 public:
  // Owns no world. Down until Start.
  SimNode(World* world, int number);
  ~SimNode();

  int number() const { return number_; }
  const std::string& id() const { return id_; }
  std::string address() const { return id_ + ":20202"; }
  // The node that has this address; -1 when it is none.
  static int NumberOf(const std::string& address);
  SimStorage& disk() { return disk_; }
  const SimClock& clock() const { return clock_; }
  absl::Time Now() const { return clock_.TimeAt(world_->scheduler.now()); }
  // Null when it is down.
  Process* process() { return process_.get(); }
  bool paused() const { return paused_; }

  // Starts the process; when the disk is full or loses its power, again later.
  void Start();
  // Ends it at once; with the power, what was not synced goes too.
  void Kill(bool power_loss);
  void Pause();
  void Resume();
  // Whether the process before this one ended with the power.
  bool lost_power() const { return lost_power_; }
  // Durable: the term that it leads, or led until it ended; zero when it had become a replica.
  Term led;
  // Longest time of a sync.
  Moment disk_delay_max = 2 * kMillisecond;

  using Event = std::function<void(Process&)>;
  // Runs `event` in the process that runs now: never, if that has ended by then; later, while it is paused.
  void After(Moment delay, Event event);
  // The same at a time of its own clock.
  void AtTime(absl::Time time, Event event);
  // Runs `event` now in the process that runs now.
  void Deliver(const Event& event) { Execute(incarnation_, event); }
  std::uint64_t incarnation() const { return incarnation_; }
  void Execute(std::uint64_t incarnation, const Event& event);

 private:
  void StartLater();

  World* const world_;
  const int number_;
  const std::string id_;
  const SimClock clock_;
  SimStorage disk_;
  std::unique_ptr<Process> process_;
  std::uint64_t incarnation_ = 0;  // grows with every start and end
  bool paused_ = false;
  bool lost_power_ = false;
  std::vector<Event> waiting_;  // while paused
};

}  // namespace echofs::sim
