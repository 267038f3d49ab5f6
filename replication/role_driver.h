// Runs a node's role machine (role_machine.h) in the daemon: gives it the time, the lease and the node, and carries
// out what it wants.
//
// Threads: one watches the lease; a few make the lease calls, each of which may wait for the backend; one carries out
// the steps of a role change in order, which may wait for databases; one gives the machine the time. The machine
// itself is under one mutex, which is never held across any of these waits. The commit fence is set under that mutex,
// before the actions of the same input are carried out.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "replication/commit_acks.h"
#include "replication/commit_fence.h"
#include "replication/lease.h"
#include "replication/role_machine.h"

namespace echofs {

// What a role change does to the node. One thread calls these, one after the other; each may wait.
class RoleHost {
 public:
  virtual ~RoleHost() = default;
  virtual void Follow(const echofs::Follow& primary) = 0;
  virtual void StopFollowing() = 0;
  // After an error the machine has it step down, as after success.
  virtual absl::Status TakeOver(Term term) = 0;
  virtual absl::Status StopWriters(absl::Duration patience) = 0;
  virtual void ResumeWriters() = 0;
  // Tries until it has worked, or `Stop` was called.
  virtual void StepDown(const std::string& reason) = 0;
};

// What status shows of the roles.
struct RoleStatus {
  RoleState state = RoleState::kFollowing;
  Term term;  // that this node leads
  LeaseState lease;
  bool lease_known = false;
  std::string lease_error;        // why the lease service cannot be asked; empty when it can
  std::string ineligible_reason;  // see RoleMachine
  LogIndex acknowledged;
  // While this node leads: how long commits are allowed without another renewal (not below zero), and the time since
  // the last one that was answered was sent.
  std::optional<absl::Duration> valid_for;
  std::optional<absl::Duration> age;
};

// Thread-safe. Start and Stop once each, from one thread.
class RoleDriver {
 public:
  // Owns nothing. `environment` is called with the driver's mutex held, so it must not call back. `acks`: where commits
  // wait for the nodes in sync, or null.
  RoleDriver(RoleOptions options, Lease* lease, CommitFence* fence, CommitAcks* acks,
             RoleEnvironment* environment, RoleHost* host);
  // Stops.
  ~RoleDriver();

  // Begins as a replica that follows nobody.
  void Start();
  // Gives the role back in order (R4): hands off if it can, else releases the lease; at most until `deadline`.
  void Resign(absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);
  // Ends all threads; the role stays as it is, and the lease, if any, runs out. Closes the fence.
  void Stop() ABSL_LOCKS_EXCLUDED(mutex_);

  // Waits until the handoff has ended. Errors are for people.
  absl::Status Handoff(const std::string& target) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Promote(bool force) ABSL_LOCKS_EXCLUDED(mutex_);
  // A follower has come, gone or acknowledged something. Cheap when that changes nothing.
  void FollowersChanged() ABSL_LOCKS_EXCLUDED(mutex_);
  // Waits until this node leads, or follows a primary, or can do neither, but at most until the deadline.
  bool WaitSettled(absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);
  // False at the deadline.
  bool WaitLeading(absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);
  RoleStatus status() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  using Step = std::function<void()>;

  void WatchLoop() ABSL_LOCKS_EXCLUDED(mutex_);
  void CallLoop() ABSL_LOCKS_EXCLUDED(mutex_);
  void StepLoop() ABSL_LOCKS_EXCLUDED(mutex_);
  void ClockLoop() ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<LeaseRecord> Make(const LeaseCall& call);
  // Gives the machine an input, carries out what it wants, and tells commits what is acknowledged.
  template <class Function>
  auto Input(Function function) ABSL_LOCKS_EXCLUDED(mutex_);
  // After each input to the machine.
  void Settle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TellCommits() ABSL_LOCKS_EXCLUDED(mutex_);
  Step StepOf(const RoleAction& action);
  void SetLeaseError(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const RoleOptions options_;
  Lease* const lease_;
  CommitFence* const fence_;
  CommitAcks* const acks_;
  RoleHost* const host_;

  mutable absl::Mutex mutex_;
  RoleMachine machine_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool followers_changed_ ABSL_GUARDED_BY(mutex_) = false;
  bool ticked_ ABSL_GUARDED_BY(mutex_) = false;  // the machine had an input since the clock looked
  std::deque<LeaseCall> calls_ ABSL_GUARDED_BY(mutex_);
  std::deque<Step> steps_ ABSL_GUARDED_BY(mutex_);
  std::string lease_error_ ABSL_GUARDED_BY(mutex_);
  std::deque<absl::Status> handoffs_ended_ ABSL_GUARDED_BY(mutex_);
  bool resigned_ ABSL_GUARDED_BY(mutex_) = false;
  RoleState logged_state_ ABSL_GUARDED_BY(mutex_) = RoleState::kFollowing;
  std::vector<std::thread> threads_;  // touched by Start and Stop alone
};

}  // namespace echofs
