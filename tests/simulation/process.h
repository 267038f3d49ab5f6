// The daemon of a simulated node: the real RoleMachine and the real ChangeLog, driven by events. The counterpart of
// replication/role_driver (calls, steps in order, the fence) and of replication/node as its host.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "replication/change_log.h"
#include "replication/orphan_store.h"
#include "replication/role_machine.h"
#include "tests/simulation/client.h"
#include "tests/simulation/lease_calls.h"
#include "tests/simulation/page_databases.h"
#include "tests/simulation/receiver.h"
#include "tests/simulation/sender.h"
#include "tests/simulation/sim_node.h"

namespace echofs::sim {

class Process final : public RoleEnvironment {
 public:
  // Owns neither.
  Process(World* world, SimNode* node);
  ~Process() override;

  // Recovers what is on the disk. After a power loss a former primary finds commits in its databases that its log lacks.
  absl::Status Start();
  void Begin();
  bool ended() const { return ended_; }

  // ---- Inputs ----
  void OnMessage(Endpoint from, StreamId stream, const Message& message);
  void OnBroken(StreamId stream);
  // After every event: the machine's actions, the fence, news for replicas and clients.
  void Settle();
  // By command.
  void Handoff(const std::string& target);
  void Promote(bool force);
  void Shutdown();

  // ---- For its parts ----
  World& world() { return *world_; }
  SimNode& node() { return *node_; }
  ChangeLog& log() { return *log_; }
  PageDatabases& databases() { return *databases_; }
  OrphanStore& orphans() { return *orphans_; }
  RoleMachine& machine() { return *machine_; }
  Sender& sender() { return sender_; }
  const Receiver& receiver() const { return receiver_; }
  absl::Time now() const { return node_->Now(); }
  void After(Moment delay, std::function<void()> event);
  // R1: the highest term that this process has heard of, or has in its log.
  Term seen_term() const { return std::max(seen_term_, log_->last_term()); }
  void SawTerm(Term term) { seen_term_ = std::max(seen_term_, term); }
  // Makes the log durable up to what it has now or later, in a while.
  void RequestSync();
  // The log has got an entry, from a primary or by this node itself.
  void OnAppended(const LogEntry& entry, bool by_itself);
  // The machine is to look at the followers.
  void FollowersChanged() { tick_ = true; }
  LogPosition log_end() const { return {log_->last_term(), log_->last_index()}; }
  // Applications may commit at this moment (R2).
  bool CanCommit() const;
  bool serving() const { return serving_; }

  // ---- RoleEnvironment ----
  LogPosition position() const override {
    return {LeaseTermOf(log_->last_term()), log_->last_index()};
  }
  LogIndex synced_index() const override { return log_->synced_index(); }
  std::vector<FollowerProgress> followers() const override { return sender_.Followers(); }

 private:
  absl::Status RecoverCommits();
  void Carry(RoleAction action);
  void NextStep();
  void EndStep();
  void RunStep(const RoleAction& action);
  void RunTakeOver(Term term);
  void FinishTakeOver(Term term, const absl::Status& status);
  void RunStopWriters(absl::Time deadline);
  void RunStepDown();
  void ArrangeTick();
  void Sync();
  void Maintain();

  World* const world_;
  SimNode* const node_;
  std::unique_ptr<ChangeLog> log_;
  std::unique_ptr<PageDatabases> databases_;
  std::unique_ptr<OrphanStore> orphans_;
  std::unique_ptr<RoleMachine> machine_;
  LeaseCalls lease_calls_;
  Receiver receiver_;
  Sender sender_;
  Client client_;

  Term seen_term_;
  absl::Time fence_ = absl::InfinitePast();
  bool serving_ = false;          // as primary, from TakeOver's success to StepDown
  bool writers_running_ = false;  // unless they were stopped
  std::deque<RoleAction> steps_;
  bool step_running_ = false;
  bool tick_ = false;
  absl::Time tick_at_ = absl::InfinitePast();  // the next one that is arranged
  bool sync_running_ = false;
  bool sync_wanted_ = false;
  bool ended_ = false;
};

}  // namespace echofs::sim
