#include "replication/replica.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "echofs/v1/replication.pb.h"
#include "replication/database_copy.h"
#include "replication/limits.h"
#include "replication/status_macros.h"
#include "replication/wire.h"

namespace echofs {
namespace {

bool IsOfNetwork(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsCancelled(status);
}

}  // namespace

Replica::Replica(ReplicaOptions options, ChangeLog* log, ApplyTarget* target)
    : options_(std::move(options)),
      log_(log),
      databases_(target),
      queue_(log, target, options_.metrics, [this] { OnProgress(); }),
      cluster_id_(options_.cluster_id) {}

Replica::~Replica() { Stop(); }

absl::Status Replica::Start() {
  ECHOFS_RETURN_IF_ERROR(EmptyTemporaryDirectory());
  ECHOFS_RETURN_IF_ERROR(queue_.Start());
  for (int i = 0; i < kCopyWorkers; ++i) threads_.emplace_back([this, i] { CopyLoop(i); });
  threads_.emplace_back([this] { FollowLoop(); });
  return absl::OkStatus();
}

void Replica::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    if (stream_ != nullptr) stream_->Cancel();
  }
  queue_.Stop();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

absl::Status Replica::EmptyTemporaryDirectory() {
  const std::string& directory = options_.temporary_directory;
  ECHOFS_RETURN_IF_ERROR(options_.storage->MakeDirectories(directory));
  ECHOFS_ASSIGN_OR_RETURN(const std::vector<std::string> names, options_.storage->List(directory));
  for (const std::string& name : names) {
    ECHOFS_RETURN_IF_ERROR(options_.storage->Remove(directory + "/" + name));
  }
  return absl::OkStatus();
}

void Replica::Follow(const std::string& address, Term term) {
  absl::MutexLock lock(&mutex_);
  lowest_term_ = std::max(lowest_term_, term);
  if (address == primary_address_ && term <= term_) return;
  primary_address_ = address;
  ++address_changes_;
  if (stream_ != nullptr) stream_->Cancel();
}

void Replica::StopFollowing() {
  absl::MutexLock lock(&mutex_);
  primary_address_.clear();
  ++address_changes_;
  if (stream_ != nullptr) stream_->Cancel();
  const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !following_; };
  mutex_.Await(absl::Condition(&idle));
  last_error_.clear();
}

absl::Status Replica::WaitApplied(absl::Time deadline) {
  while (queue_.copying() || queue_.applied_index() < log_->last_index()) {
    if (absl::Now() >= deadline) {
      for (const DatabaseApplyStatus& database : queue_.Databases()) {
        if (database.state == DatabaseState::kOk) continue;
        return absl::DeadlineExceededError(fmt::format(
            "{} is not complete here ({}{}{})", database.name, DatabaseStateName(database.state),
            database.detail.empty() ? "" : ": ", database.detail));
      }
      return absl::DeadlineExceededError("the log was not applied in time");
    }
    absl::SleepFor(absl::Milliseconds(1));
  }
  return absl::OkStatus();
}

void Replica::FollowLoop() {
  absl::Duration delay = kReconnectDelayMin;
  std::string said;
  std::uint64_t change = 0;
  absl::Time trouble_since;
  while (true) {
    std::string address;
    {
      absl::MutexLock lock(&mutex_);
      const auto wanted = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stopping_ || !primary_address_.empty();
      };
      mutex_.Await(absl::Condition(&wanted));
      if (stopping_) return;
      address = primary_address_;
      if (change != address_changes_) {
        change = address_changes_;
        delay = kReconnectDelayMin;
        said.clear();
        trouble_since = absl::Now();
      }
      following_ = true;
    }
    const absl::Time begin = absl::Now();
    const absl::Status status = FollowOnce(address);
    if (absl::Now() - begin >= kReconnectDelayMax) {
      // It worked for a while: this is another trouble than the last one.
      delay = kReconnectDelayMin;
      said.clear();
    }
    absl::MutexLock lock(&mutex_);
    following_ = false;
    if (stopping_) return;
    if (change != address_changes_) continue;
    // A person has to mend this; trying faster helps nobody.
    const bool refused = !reached_ && absl::IsFailedPrecondition(status);
    DescribeError(status);
    if (reached_) trouble_since = absl::Now();
    // A primary that has just gone, or has not quite taken over, is none to be warned of.
    if (IsOfNetwork(status) && absl::Now() < trouble_since + kTroubleGrace) {
      spdlog::log(reached_ ? spdlog::level::info : spdlog::level::debug, "{}. Trying again",
                  last_error_);
    } else if (last_error_ != said) {
      said = last_error_;
      spdlog::log(refused ? spdlog::level::err : spdlog::level::warn, "{}. Trying again", said);
    }
    WaitBeforeReconnect(change, refused ? kRefusedDelay : delay);
    delay = std::min(delay * 2, kReconnectDelayMax);
  }
}

void Replica::WaitBeforeReconnect(std::uint64_t change, absl::Duration wait) {
  const auto wanted = [this, change]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || change != address_changes_;
  };
  mutex_.AwaitWithTimeout(absl::Condition(&wanted), wait);
}

absl::Status Replica::FollowOnce(const std::string& address) {
  const std::shared_ptr<PrimaryChannel> channel = options_.connector->Connect(address);
  const std::unique_ptr<FollowCall> call = channel->Follow();
  ReplicaStream::Callbacks callbacks;
  callbacks.hello = [&](const v1::Hello& hello) { return OnHello(hello, channel); };
  callbacks.heartbeat = [this](const v1::Heartbeat& heartbeat) { OnHeartbeat(heartbeat); };
  ReplicaStream stream({log_, &queue_, databases_, options_.orphans}, call.get(),
                       std::move(callbacks));
  v1::Hello hello;
  hello.set_protocol_version(kProtocolVersion);
  hello.set_node(options_.node_id);
  hello.set_address(options_.address);
  hello.set_version(options_.version);
  ToMessage(LogEnds{log_->first_index(), log_->last_index(), log_->last_term()}, log_->Terms(),
            &hello);
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_ || address != primary_address_) return absl::CancelledError("stopping");
    hello.set_cluster_id(cluster_id_);
    hello.set_term(std::max(log_->last_term(), lowest_term_).value);
    reached_ = false;
    stream_ = &stream;
  }
  absl::Status status = stream.Run(hello);
  absl::MutexLock lock(&mutex_);
  stream_ = nullptr;
  channel_ = nullptr;
  return status;
}

absl::Status Replica::OnHello(const v1::Hello& hello,
                              const std::shared_ptr<PrimaryChannel>& channel) {
  if (hello.protocol_version() != kProtocolVersion) {
    return absl::FailedPreconditionError(fmt::format(
        "it speaks protocol version {} (echofs {}), this node {}: run the same version of "
        "echofs on both",
        hello.protocol_version(), hello.version(), kProtocolVersion));
  }
  if (hello.cluster_id().empty() || hello.cluster_id().size() > kIdentitySizeMax ||
      hello.node().size() > kIdentitySizeMax || hello.version().size() > kIdentitySizeMax) {
    return absl::InvalidArgumentError("its Hello has a field that is missing or too large");
  }
  // R1: a term below one that we have seen is of a primary that is none any more.
  if (hello.term() < log_->last_term().value) {
    return absl::FailedPreconditionError(fmt::format(
        "it is at term {}, but this node has seen term {}: it is not the newest primary, or "
        "was restored from an older backup",
        hello.term(), log_->last_term().value));
  }
  std::string cluster_id;
  {
    absl::MutexLock lock(&mutex_);
    cluster_id = cluster_id_;
    if (hello.term() < lowest_term_.value) {
      return absl::UnavailableError(fmt::format("it is at term {}, the lease is at term {}",
                                                hello.term(), lowest_term_.value));
    }
  }
  if (cluster_id.empty()) {
    ECHOFS_RETURN_IF_ERROR(options_.join_cluster(hello.cluster_id()));
    spdlog::info("joined cluster {}", hello.cluster_id());
  } else if (cluster_id != hello.cluster_id()) {
    return absl::FailedPreconditionError(
        fmt::format("it belongs to cluster {}, this node to {}: correct the primary's address, or "
                    "move this node's "
                    "data directory away to let it join anew",
                    hello.cluster_id(), cluster_id));
  }
  absl::MutexLock lock(&mutex_);
  cluster_id_ = hello.cluster_id();
  primary_id_ = hello.node();
  term_ = {hello.term()};
  target_ = {hello.last_index()};
  last_error_.clear();
  reached_ = true;
  channel_ = channel;
  spdlog::info("following {} ({}) from entry {}, it is at {}", hello.node(), primary_address_,
               log_->last_index().value, hello.last_index());
  return absl::OkStatus();
}

void Replica::OnHeartbeat(const v1::Heartbeat& heartbeat) {
  absl::MutexLock lock(&mutex_);
  matched_ = true;  // what has to be cut or copied came before
  lag_.Heartbeat(heartbeat.time_ms(), {heartbeat.last_index()}, absl::ToUnixMillis(absl::Now()));
}

void Replica::OnProgress() {
  absl::MutexLock lock(&mutex_);
  if (stream_ != nullptr) stream_->Progress();
}

void Replica::DescribeError(const absl::Status& status) {
  const char* what = "cannot follow";
  if (IsOfNetwork(status)) what = reached_ ? "lost the connection to" : "no connection to";
  last_error_ = fmt::format("{} the primary at {}: {}", what, primary_address_,
                            std::string(status.message()));
}

void Replica::CopyLoop(int number) {
  const std::string path = fmt::format("{}/copy-{}", options_.temporary_directory, number);
  for (std::uint64_t i = 0;; ++i) {
    const std::shared_ptr<CopyTask> task = queue_.NextCopy();
    if (task == nullptr) return;
    // A name of its own: the file of the copy before may still wait for being installed.
    queue_.FinishCopy(task, Copy(*task, fmt::format("{}-{}", path, i)));
  }
}

absl::StatusOr<CompletedCopy> Replica::Copy(CopyTask& task, const std::string& path) {
  const std::shared_ptr<PrimaryChannel> channel = WaitForChannel(task);
  if (channel == nullptr) return absl::CancelledError("the copy was cancelled");
  v1::FetchDatabaseRequest request;
  request.set_node(options_.node_id);
  request.set_database(task.database);
  if (task.rewind) ToMessage(task.rewind->pages, &request);
  {
    absl::MutexLock lock(&mutex_);
    request.set_cluster_id(cluster_id_);
    request.set_term(term_.value);
  }
  if (!task.rewind) spdlog::info("copying {} from the primary", task.database);
  const std::unique_ptr<FetchCall> call = channel->FetchDatabase(request);
  return CopyDatabase(options_.storage, *log_, *call, path, task);
}

std::shared_ptr<PrimaryChannel> Replica::WaitForChannel(const CopyTask& task) {
  absl::MutexLock lock(&mutex_);
  const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || channel_ != nullptr;
  };
  while (!mutex_.AwaitWithTimeout(absl::Condition(&ready), kStopCheckInterval)) {
    if (task.cancelled()) return nullptr;
  }
  return stopping_ ? nullptr : channel_;
}

ReplicaStatus Replica::status() const {
  ReplicaStatus status;
  // The queue first: it is never asked while our own mutex is held.
  status.databases = queue_.Databases();
  status.applied_index = queue_.applied_index();
  const bool copying = queue_.copying();
  status.rewinds = queue_.rewinds();
  absl::MutexLock lock(&mutex_);
  status.connected = channel_ != nullptr;
  status.cluster_id = cluster_id_;
  status.primary_id = primary_id_;
  status.term = term_;
  status.last_error = last_error_;
  status.lag_ms =
      lag_.LagMs(status.applied_index, log_->last_index(), absl::ToUnixMillis(absl::Now()));
  status.caught_up = matched_ && !copying && status.applied_index >= target_;
  return status;
}

}  // namespace echofs
