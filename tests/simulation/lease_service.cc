#include "tests/simulation/lease_service.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "tests/simulation/judge.h"

namespace echofs::sim {

LeaseService::LeaseService(World* world)
    : world_(world),
      clock_(world->options.clock_start.back(), world->options.clock_ppm.back()),
      table_(std::make_unique<LeaseTable>()) {}

absl::Duration LeaseService::Now() const {
  return absl::Nanoseconds(clock_.At(world_->scheduler.now()));
}

void LeaseService::Stop() {
  up_ = false;
  ++expiry_number_;
  watchers_.clear();
}

void LeaseService::Start() {
  if (up_) return;
  up_ = true;
  ++world_->counts.lease_restarts;
  table_ = std::make_unique<LeaseTable>(world_->random.Next() >> 8);
  if (stored_.record.term.value > 0) table_->Restore(stored_, Now());
  world_->Trace("lease service: started, term {}", stored_.record.term.value);
  Changed();
}

void LeaseService::Call(const LeaseCall& call, const std::string& node_id,
                        const std::string& address,
                        const std::function<void(absl::StatusOr<LeaseRecord>)>& reply) {
  if (!up_) return;
  const LeaseRecord before = record();
  absl::StatusOr<LeaseRecord> result = Execute(call, node_id, address);
  // Durable before anybody learns of it.
  stored_ = table_->tenure();
  if (record().term != before.term) {
    world_->Trace("lease service: term {} for {}, in sync: {}", record().term.value,
                  record().primary_id, fmt::join(record().in_sync, " "));
    world_->judge->OnTermGiven(before, record(), call.kind == LeaseCall::Kind::kTransfer);
  }
  if (record().in_sync != before.in_sync) {
    world_->Trace("lease service: in sync: {}", fmt::join(record().in_sync, " "));
  }
  world_->Mix(record().revision);
  reply(std::move(result));
  Changed();
}

absl::StatusOr<LeaseRecord> LeaseService::Execute(const LeaseCall& call, const std::string& node_id,
                                                  const std::string& address) {
  const absl::Duration ttl = world_->options.ttl;
  const absl::Duration now = Now();
  const auto empty = [](const absl::Status& status) -> absl::StatusOr<LeaseRecord> {
    if (!status.ok()) return status;
    return LeaseRecord();
  };
  switch (call.kind) {
    case LeaseCall::Kind::kAcquire:
      return table_->Acquire(node_id, address, call.revision, call.in_sync, ttl, now);
    case LeaseCall::Kind::kRenew:
      return table_->Renew(call.term, node_id, ttl, now);
    case LeaseCall::Kind::kSetInSync:
      return table_->SetInSync(call.term, node_id, call.revision, call.in_sync, now);
    case LeaseCall::Kind::kTransfer:
      return table_->Transfer(call.term, node_id, call.target_id, call.target_address, ttl, now);
    case LeaseCall::Kind::kRelease:
      return empty(table_->Release(call.term, node_id, now));
    case LeaseCall::Kind::kAnnounce:
      return empty(table_->Announce(call.announcement, ttl, now));
    case LeaseCall::Kind::kWithdraw:
      return empty(table_->Withdraw(node_id, now));
  }
  return absl::InternalError("unknown lease call");
}

void LeaseService::Watch(std::uint64_t version, Moment timeout,
                         const std::function<void(LeaseState)>& reply) {
  if (!up_) return;
  const Moment deadline = world_->scheduler.now() + timeout;
  watchers_.push_back({version, deadline, reply});
  world_->scheduler.At(deadline, [this] {
    if (up_) Changed();
  });
  Changed();
}

void LeaseService::Changed() {
  table_->Expire(Now());
  stored_ = table_->tenure();
  std::vector<Watcher> waiting = std::exchange(watchers_, {});
  for (Watcher& watcher : waiting) {
    if (watcher.version != table_->version() || world_->scheduler.now() >= watcher.deadline) {
      watcher.reply(table_->Read(Now()));
    } else {
      watchers_.push_back(std::move(watcher));
    }
  }
  const absl::Duration next = table_->NextExpiry();
  if (next == absl::InfiniteDuration()) return;
  const std::uint64_t number = ++expiry_number_;
  world_->scheduler.At(clock_.MomentOf(absl::ToInt64Nanoseconds(next)), [this, number] {
    if (number == expiry_number_) Changed();
  });
}

}  // namespace echofs::sim
