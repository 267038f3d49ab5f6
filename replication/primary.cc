#include "replication/primary.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/time/clock.h"
#include "echofs/v1/replication.pb.h"
#include "replication/fetch_session.h"
#include "replication/limits.h"
#include "replication/status_macros.h"
#include "replication/wire.h"

namespace echofs {
namespace {

absl::Status Stopping() { return absl::UnavailableError("this node stops being the primary"); }

}  // namespace

Primary::Primary(PrimaryIdentity identity, const ChangeLog* log, ApplyTarget* target,
                 std::function<void()> on_change)
    : identity_(std::move(identity)),
      log_(log),
      target_(target),
      on_change_(std::move(on_change)) {}

Primary::~Primary() { Stop(); }

void Primary::Stop() {
  stopping_ = true;
  absl::MutexLock lock(&mutex_);
  for (FollowServerStream* stream : follow_calls_) stream->Cancel();
  for (FetchServerStream* stream : fetch_calls_) stream->Cancel();
  const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return follow_calls_.empty() && fetch_calls_.empty();
  };
  mutex_.Await(absl::Condition(&idle));
}

absl::Status Primary::Follow(FollowServerStream& stream) {
  std::uint64_t session = 0;
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return Stopping();
    if (follow_calls_.size() >= kFollowSessionsMax) {
      return absl::ResourceExhaustedError(fmt::format(
          "primary {} has {} replicas and takes no more", identity_.node_id, kFollowSessionsMax));
    }
    follow_calls_.insert(&stream);
    session = ++last_session_;
  }
  std::string node;
  FollowSession::Callbacks callbacks;
  callbacks.joined = [&](const v1::Hello& hello) {
    node = hello.node();
    return Join(hello, session, &stream);
  };
  callbacks.acknowledged = [&](LogIndex synced, LogIndex applied) {
    {
      absl::MutexLock lock(&mutex_);
      Follower& follower = followers_[node];  // present while its session lasts
      if (follower.session != session) return;
      follower.acked = synced;
      follower.acked_before = std::max(follower.acked_before, synced);
      follower.applied = applied;
      follower.last_seen = absl::Now();
    }
    on_change_();
  };
  absl::Status status =
      FollowSession(identity_, log_, &stream, &stopping_, std::move(callbacks)).Run();
  if (!status.ok() && !absl::IsCancelled(status)) {
    const std::string why(status.message());
    if (!node.empty()) {
      spdlog::warn("replica {}: {}", node, why);
    } else {
      refusals_.Warn(why, fmt::format("refused a replica at {}: {}", stream.peer(), why));
    }
  }
  if (!node.empty()) {
    Leave(node, session);
    on_change_();
  }
  absl::MutexLock lock(&mutex_);
  follow_calls_.erase(&stream);
  return stopping_ ? Stopping() : status;
}

absl::Status Primary::Join(const v1::Hello& hello, std::uint64_t session,
                           FollowServerStream* stream) {
  absl::MutexLock lock(&mutex_);
  if (stopping_) return Stopping();
  if (hello.node() == identity_.node_id) {
    return absl::FailedPreconditionError(
        fmt::format("a replica calls itself {}, which is the primary's own name: give every node "
                    "its own node.id",
                    hello.node()));
  }
  ForgetOldFollowers();
  if (followers_.size() >= kFollowersRememberedMax && followers_.count(hello.node()) == 0) {
    return absl::ResourceExhaustedError("too many different replicas in a short time");
  }
  Follower& follower = followers_[hello.node()];
  // Its old connection may not have noticed yet that it is dead.
  if (follower.stream != nullptr) follower.stream->Cancel();
  follower.address = hello.address();
  follower.acked = {};  // until it says so itself
  follower.applied = {};
  follower.last_seen = absl::Now();
  follower.session = session;
  follower.stream = stream;
  spdlog::info("replica {} ({}) connected at entry {}", hello.node(), hello.address(),
               hello.last_index());
  return absl::OkStatus();
}

void Primary::Leave(const std::string& node, std::uint64_t session) {
  absl::MutexLock lock(&mutex_);
  const auto found = followers_.find(node);
  if (found == followers_.end() || found->second.session != session) return;
  found->second.stream = nullptr;
  spdlog::info("replica {} disconnected at entry {}", node, found->second.acked.value);
}

void Primary::ForgetOldFollowers() {
  const absl::Time oldest = absl::Now() - kFollowerRemembered;
  for (auto i = followers_.begin(); i != followers_.end();) {
    const bool forget = i->second.stream == nullptr && i->second.last_seen < oldest;
    i = forget ? followers_.erase(i) : std::next(i);
  }
}

absl::Status Primary::FetchDatabase(const v1::FetchDatabaseRequest& request,
                                    FetchServerStream& stream) {
  if (request.cluster_id() != identity_.cluster_id) {
    return absl::FailedPreconditionError(
        fmt::format("the request comes from cluster {}, this is cluster {}", request.cluster_id(),
                    identity_.cluster_id));
  }
  if (request.term() > identity_.term.value) {  // R1
    return absl::UnavailableError(fmt::format("primary {} is at term {}, the request at term {}",
                                              identity_.node_id, identity_.term.value,
                                              request.term()));
  }
  if (!IsValidDatabaseName(request.database())) {
    return absl::InvalidArgumentError("the request names a database with an invalid name");
  }
  ECHOFS_ASSIGN_OR_RETURN(const PageSet pages, PagesFromMessage(request));
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) return Stopping();
    if (fetch_calls_.size() >= kFetchSessionsMax) {
      return absl::UnavailableError("too many copies at once: try again");
    }
    fetch_calls_.insert(&stream);
  }
  spdlog::info("replica {} copies {} of {}", request.node(),
               pages.empty() ? "all" : fmt::format("{} pages", pages.size()), request.database());
  absl::Status status = ServeFetch(*log_, *target_, request.database(), pages, stopping_, stream);
  if (!status.ok()) {
    spdlog::info("copy of {} for replica {} ended: {}", request.database(), request.node(),
                 std::string(status.message()));
  }
  absl::MutexLock lock(&mutex_);
  fetch_calls_.erase(&stream);
  return stopping_ ? Stopping() : status;
}

std::vector<FollowerStatus> Primary::Followers() const {
  const absl::Time oldest = absl::Now() - kFollowerRemembered;
  std::vector<FollowerStatus> statuses;
  absl::MutexLock lock(&mutex_);
  for (auto& [node, follower] : followers_) {
    if (follower.stream == nullptr && follower.last_seen < oldest) continue;
    FollowerStatus& status = statuses.emplace_back();
    status.node = node;
    status.address = follower.address;
    status.connected = follower.stream != nullptr;
    status.acked_index = follower.acked;
    status.applied_index = follower.applied;
    status.lag_ms = LagMs(follower);
  }
  return statuses;
}

std::uint64_t Primary::LagMs(Follower& follower) const {
  const LogIndex acked = follower.acked_before;
  if (acked >= log_->last_index()) return 0;
  const absl::Time now = absl::Now();
  if (now - follower.lag_at < kLagRemembered) return follower.lag_ms;
  absl::Time since = follower.last_seen;
  const absl::StatusOr<std::optional<LogEntry>> entry = log_->Read(acked.Next())->Next();
  if (entry.ok() && entry->has_value() && (*entry)->timestamp_ms > 0) {
    since = std::max(began_, absl::FromUnixMillis((*entry)->timestamp_ms));
  }
  follower.lag_ms =
      static_cast<std::uint64_t>(std::max<std::int64_t>(0, absl::ToInt64Milliseconds(now - since)));
  follower.lag_at = now;
  return follower.lag_ms;
}

}  // namespace echofs
