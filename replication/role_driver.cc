#include "replication/role_driver.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "replication/boot_time.h"
#include "replication/failpoint.h"

namespace echofs {
namespace {

// A renewal must not wait behind a slow announcement or change of the record.
constexpr int kCallThreads = 3;
constexpr absl::Duration kWatchTimeout = absl::Seconds(30);
constexpr absl::Duration kWatchRetry = absl::Milliseconds(200);

}  // namespace

RoleDriver::RoleDriver(RoleOptions options, Lease* lease, CommitFence* fence, CommitAcks* acks,
                       RoleEnvironment* environment, RoleHost* host)
    : options_(options),
      lease_(lease),
      fence_(fence),
      acks_(acks),
      host_(host),
      machine_(std::move(options), environment) {}

RoleDriver::~RoleDriver() { Stop(); }

template <class Function>
auto RoleDriver::Input(Function function) {
  struct Teller {
    RoleDriver* driver;
    ~Teller() { driver->TellCommits(); }
  } teller{this};  // when the mutex is free again
  absl::MutexLock lock(&mutex_);
  struct Settler {
    RoleDriver* driver;
    ~Settler() ABSL_NO_THREAD_SAFETY_ANALYSIS { driver->Settle(); }
  } settler{this};
  return function(machine_, LeaseClockNow());
}

void RoleDriver::Start() {
  threads_.emplace_back([this] { WatchLoop(); });
  for (int i = 0; i < kCallThreads; ++i) threads_.emplace_back([this] { CallLoop(); });
  threads_.emplace_back([this] { StepLoop(); });
  threads_.emplace_back([this] { ClockLoop(); });
}

void RoleDriver::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    fence_->OpenUntil(absl::InfinitePast());
  }
  if (acks_ != nullptr) acks_->Close("this node is stopping");
  lease_->Cancel();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void RoleDriver::Resign(absl::Time deadline) {
  Input([](RoleMachine& machine, absl::Time now) { machine.Shutdown(now); });
  absl::MutexLock lock(&mutex_);
  const auto done = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return resigned_; };
  if (!mutex_.AwaitWithDeadline(absl::Condition(&done), deadline)) {
    spdlog::warn("could not give the lease back in time ({}): it will run out by itself",
                 RoleStateName(machine_.state()));
    return;
  }
  // The calls that say good-bye.
  const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return calls_.empty(); };
  mutex_.AwaitWithDeadline(absl::Condition(&idle), deadline);
}

absl::Status RoleDriver::Handoff(const std::string& target) {
  absl::Status begun =
      Input([&](RoleMachine& machine, absl::Time now) { return machine.Handoff(now, target); });
  if (!begun.ok()) return begun;
  absl::MutexLock lock(&mutex_);
  const auto ended = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !handoffs_ended_.empty();
  };
  mutex_.Await(absl::Condition(&ended));
  if (handoffs_ended_.empty()) return absl::UnavailableError("this node is stopping");
  absl::Status status = std::move(handoffs_ended_.front());
  handoffs_ended_.pop_front();
  return status;
}

absl::Status RoleDriver::Promote(bool force) {
  return Input([&](RoleMachine& machine, absl::Time now) { return machine.Promote(now, force); });
}

void RoleDriver::FollowersChanged() {
  if (acks_ != nullptr && acks_->waiting()) {
    Input([](RoleMachine& machine, absl::Time now) { machine.Tick(now); });
    return;
  }
  absl::MutexLock lock(&mutex_);
  // While it merely leads, the clock looks often enough.
  if (machine_.state() != RoleState::kLeading) followers_changed_ = true;
}

bool RoleDriver::WaitSettled(absl::Time deadline) {
  absl::MutexLock lock(&mutex_);
  const auto settled = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (stopping_ || machine_.leading()) return true;
    if (!machine_.lease_known() || machine_.state() != RoleState::kFollowing) return false;
    return machine_.lease().held;
  };
  return mutex_.AwaitWithDeadline(absl::Condition(&settled), deadline);
}

bool RoleDriver::WaitLeading(absl::Time deadline) {
  absl::MutexLock lock(&mutex_);
  const auto leading = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || machine_.leading();
  };
  return mutex_.AwaitWithDeadline(absl::Condition(&leading), deadline) && machine_.leading();
}

RoleStatus RoleDriver::status() const {
  absl::MutexLock lock(&mutex_);
  RoleStatus status;
  status.state = machine_.state();
  status.term = machine_.leading() ? machine_.term() : Term{};
  status.lease = machine_.lease();
  status.lease_known = machine_.lease_known();
  status.lease_error = lease_error_;
  status.ineligible_reason = machine_.ineligible_reason();
  status.acknowledged = machine_.acknowledged_index();
  if (machine_.leading() && machine_.valid_until() != absl::InfinitePast()) {
    const absl::Time now = LeaseClockNow();
    status.valid_for = std::max(absl::ZeroDuration(), machine_.valid_until() - now);
    status.age = now - machine_.proven_at();
  }
  return status;
}

void RoleDriver::Settle() {
  fence_->OpenUntil(machine_.valid_until());
  ticked_ = true;
  for (RoleAction& action : machine_.TakeActions()) {
    if (LeaseCall* call = std::get_if<LeaseCall>(&action)) {
      calls_.push_back(std::move(*call));
    } else if (const HandoffEnded* ended = std::get_if<HandoffEnded>(&action)) {
      handoffs_ended_.push_back(ended->status);
    } else if (std::get_if<Stopped>(&action) != nullptr) {
      resigned_ = true;
    } else {
      steps_.push_back(StepOf(action));
    }
  }
  if (machine_.state() != logged_state_) {
    logged_state_ = machine_.state();
    spdlog::debug("role: {}", RoleStateName(logged_state_));
  }
}

RoleDriver::Step RoleDriver::StepOf(const RoleAction& action) {
  if (const Follow* follow = std::get_if<Follow>(&action)) {
    return [this, follow = *follow] { host_->Follow(follow); };
  }
  if (std::get_if<StopFollowing>(&action) != nullptr) {
    return [this] {
      host_->StopFollowing();
      Input([&](RoleMachine& machine, absl::Time now) { machine.OnStoppedFollowing(now); });
    };
  }
  if (const TakeOver* take_over = std::get_if<TakeOver>(&action)) {
    return [this, term = take_over->term] {
      // Its writers come back before the machine hears that it leads.
      if (acks_ != nullptr) acks_->Open();
      const absl::Status status = host_->TakeOver(term);
      Input([&](RoleMachine& machine, absl::Time now) { machine.OnTookOver(now, status); });
    };
  }
  if (const StopWriters* stop = std::get_if<StopWriters>(&action)) {
    return [this, deadline = stop->deadline] {
      const absl::Status status = host_->StopWriters(deadline - LeaseClockNow());
      Input([&](RoleMachine& machine, absl::Time now) { machine.OnWritersStopped(now, status); });
    };
  }
  if (const StepDown* down = std::get_if<StepDown>(&action)) {
    return [this, reason = down->reason] {
      if (acks_ != nullptr) acks_->Close(reason);
      host_->StepDown(reason);
      Input([&](RoleMachine& machine, absl::Time now) { machine.OnSteppedDown(now); });
    };
  }
  return [this] { host_->ResumeWriters(); };
}

void RoleDriver::StepLoop() {
  while (true) {
    Step step;
    {
      absl::MutexLock lock(&mutex_);
      const auto work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stopping_ || !steps_.empty();
      };
      mutex_.Await(absl::Condition(&work));
      if (stopping_) return;
      step = std::move(steps_.front());
      steps_.pop_front();
    }
    step();
  }
}

void RoleDriver::CallLoop() {
  while (true) {
    LeaseCall call;
    {
      absl::MutexLock lock(&mutex_);
      const auto work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stopping_ || !calls_.empty();
      };
      mutex_.Await(absl::Condition(&work));
      if (stopping_) return;
      call = std::move(calls_.front());
      calls_.pop_front();
    }
    const absl::StatusOr<LeaseRecord> reply = Make(call);
    Input([&](RoleMachine& machine, absl::Time now) ABSL_NO_THREAD_SAFETY_ANALYSIS {
      SetLeaseError(reply.status());
      machine.OnLeaseReply(now, call.id, reply);
    });
  }
}

absl::StatusOr<LeaseRecord> RoleDriver::Make(const LeaseCall& call) {
  const auto empty = [](const absl::Status& status) -> absl::StatusOr<LeaseRecord> {
    if (!status.ok()) return status;
    return LeaseRecord{};
  };
  const std::string& self = options_.node_id;
  switch (call.kind) {
    case LeaseCall::Kind::kAcquire: {
      Failpoint("lease.acquire.before");
      absl::StatusOr<LeaseRecord> reply =
          lease_->Acquire(self, options_.address, call.revision, call.in_sync, options_.ttl);
      Failpoint("lease.acquire.after");
      return reply;
    }
    case LeaseCall::Kind::kRenew: {
      Failpoint("lease.renew.before");
      absl::StatusOr<LeaseRecord> reply = lease_->Renew(call.term, self, options_.ttl);
      Failpoint("lease.renew.after");
      return reply;
    }
    case LeaseCall::Kind::kSetInSync: {
      Failpoint("lease.in_sync.before");
      absl::StatusOr<LeaseRecord> reply =
          lease_->SetInSync(call.term, self, call.revision, call.in_sync);
      Failpoint("lease.in_sync.after");
      return reply;
    }
    case LeaseCall::Kind::kTransfer: {
      Failpoint("lease.transfer.before");
      absl::StatusOr<LeaseRecord> reply =
          lease_->Transfer(call.term, self, call.target_id, call.target_address, options_.ttl);
      Failpoint("lease.transfer.after");
      return reply;
    }
    case LeaseCall::Kind::kRelease: {
      Failpoint("lease.release.before");
      absl::StatusOr<LeaseRecord> reply = empty(lease_->Release(call.term, self));
      Failpoint("lease.release.after");
      return reply;
    }
    case LeaseCall::Kind::kAnnounce:
      return empty(lease_->Announce(call.announcement, options_.ttl));
    case LeaseCall::Kind::kWithdraw:
      return empty(lease_->Withdraw(self));
  }
  return absl::InternalError("unknown lease call");
}

void RoleDriver::SetLeaseError(const absl::Status& status) {
  std::string error;
  // That somebody else is primary is no trouble of the service.
  if (!status.ok() && !absl::IsFailedPrecondition(status) && !absl::IsCancelled(status)) {
    error = std::string(status.message());
  }
  if (error == lease_error_) return;
  if (error.empty()) {
    spdlog::info("the lease service answers again");
  } else if (lease_error_.empty()) {
    spdlog::warn("the lease service cannot be asked: {}. Trying again", error);
  }
  lease_error_ = std::move(error);
}

void RoleDriver::WatchLoop() {
  absl::StatusOr<LeaseState> state = lease_->Read();
  while (true) {
    if (state.ok()) {
      Input([&](RoleMachine& machine, absl::Time now) { machine.OnLeaseState(now, *state); });
    }
    {
      absl::MutexLock lock(&mutex_);
      if (stopping_) return;
      SetLeaseError(state.status());
      if (!state.ok() && mutex_.AwaitWithTimeout(absl::Condition(&stopping_), kWatchRetry)) return;
    }
    state = state.ok() ? lease_->WaitForChange(state->version, kWatchTimeout) : lease_->Read();
  }
}

void RoleDriver::ClockLoop() {
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      ticked_ = false;
      followers_changed_ = false;
      const absl::Time now = LeaseClockNow();
      const auto woken = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stopping_ || followers_changed_ || ticked_;
      };
      // The lease clock and the one that is waited by may drift apart by a little; the machine does not mind.
      const bool input =
          mutex_.AwaitWithTimeout(absl::Condition(&woken), machine_.NextTick(now) - now);
      if (stopping_) return;
      if (input && !followers_changed_) continue;  // another input has moved the next tick
    }
    Input([](RoleMachine& machine, absl::Time now) { machine.Tick(now); });
  }
}

void RoleDriver::TellCommits() {
  if (acks_ == nullptr) return;
  LogIndex acknowledged;
  {
    absl::MutexLock lock(&mutex_);
    acknowledged = machine_.acknowledged_index();
    if (machine_.term() == Term{} || machine_.valid_until() == absl::InfinitePast()) {
      acknowledged = {};
    }
  }
  if (acknowledged != LogIndex{}) acks_->Advance(acknowledged);
}

}  // namespace echofs
