#include "replication/replica_stream.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <set>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "echofs/v1/replication.pb.h"
#include "replication/failpoint.h"
#include "replication/limits.h"
#include "replication/status_macros.h"
#include "replication/wire.h"

namespace echofs {

ReplicaStream::ReplicaStream(const Parts& parts, FollowCall* call, Callbacks callbacks)
    : log_(parts.log),
      queue_(parts.queue),
      target_(parts.target),
      orphans_(parts.orphans),
      call_(call),
      callbacks_(std::move(callbacks)) {}

absl::Status ReplicaStream::Run(const v1::Hello& hello) {
  std::thread acknowledger([this] { AcknowledgeLoop(); });
  v1::FollowRequest request;
  *request.mutable_hello() = hello;
  // When the write fails, the read does too, and Finish tells why.
  call_->Write(request);
  absl::Status status = Receive();
  // Not when the call has ended by itself: its status would be lost.
  if (!status.ok()) call_->Cancel();
  {
    absl::MutexLock lock(&mutex_);
    closing_ = true;
  }
  acknowledger.join();
  receiver_ = nullptr;  // takes back half a record
  absl::Status finished = call_->Finish();
  absl::MutexLock lock(&mutex_);
  if (!failure_.ok()) return failure_;
  if (!status.ok()) return status;
  return finished.ok() ? absl::UnavailableError("the primary ended the stream") : finished;
}

// OK when the call ended by itself.
absl::Status ReplicaStream::Receive() {
  v1::FollowResponse response;
  if (!Read(&response)) return absl::OkStatus();
  if (!response.has_hello()) return absl::InvalidArgumentError("the primary sent no Hello");
  ECHOFS_RETURN_IF_ERROR(ReceiveHello(response.hello()));
  while (Read(&response)) {
    switch (response.message_case()) {
      case v1::FollowResponse::kBase:
        ECHOFS_RETURN_IF_ERROR(ReceiveBase(response.base()));
        break;
      case v1::FollowResponse::kRewind:
        ECHOFS_RETURN_IF_ERROR(ReceiveRewind(response.rewind()));
        break;
      case v1::FollowResponse::kChunk:
        ECHOFS_RETURN_IF_ERROR(ReceiveChunk(response.chunk()));
        break;
      case v1::FollowResponse::kHeartbeat:
        if (response.heartbeat().term() != primary_term_.value) {
          return absl::InvalidArgumentError("the primary changed its term within a stream");
        }
        if (receiver_ == nullptr) StartAcknowledging();
        callbacks_.heartbeat(response.heartbeat());
        break;
      default:
        return absl::InvalidArgumentError("the primary sent an unexpected message");
    }
  }
  return absl::OkStatus();
}

absl::Status ReplicaStream::ReceiveHello(const v1::Hello& hello) {
  ECHOFS_RETURN_IF_ERROR(callbacks_.hello(hello));
  primary_ = hello.node();
  primary_term_ = {hello.term()};
  synchronous_ = hello.synchronous();
  primary_last_ = {hello.last_index()};
  ECHOFS_ASSIGN_OR_RETURN(primary_terms_, TermsFromMessage(hello));
  return absl::OkStatus();
}

CommonPoint ReplicaStream::Common() const {
  return FindCommonPoint(log_->Terms(), log_->last_index(), primary_terms_, primary_last_);
}

RewindContext ReplicaStream::Context() const {
  return {log_, target_, orphans_, primary_, primary_term_};
}

absl::Status ReplicaStream::ReceiveRewind(const v1::Rewind& rewind) {
  const LogIndex index{rewind.index()};
  const CommonPoint common = Common();
  if (receiver_ != nullptr || !common.known || common.index != index ||
      common.term.value != rewind.term() || index >= log_->last_index() ||
      index.Next() < log_->first_index()) {
    return absl::InvalidArgumentError(fmt::format(
        "the primary wants entries after {} taken back, which does not fit the two histories",
        index.value));
  }
  spdlog::warn("this node has entries {} to {} that primary {} does not have: taking them back",
               index.value + 1, log_->last_index().value, primary_);
  ECHOFS_RETURN_IF_ERROR(queue_->Rebase([&] { return RewindLog(Context(), common); }));
  StartAcknowledging();
  return absl::OkStatus();
}

bool ReplicaStream::Read(v1::FollowResponse* response) {
  {
    absl::MutexLock lock(&mutex_);
    reading_since_ = absl::Now();
  }
  const bool read = call_->Read(response);
  absl::MutexLock lock(&mutex_);
  reading_since_ = absl::InfiniteFuture();
  return read;
}

absl::Status ReplicaStream::ReceiveBase(const v1::LogBase& base) {
  if (receiver_ != nullptr) {
    return absl::InvalidArgumentError("the primary sent a log base after records");
  }
  if (catalog_.size() + static_cast<std::size_t>(base.databases_size()) > kCatalogDatabasesMax) {
    return absl::ResourceExhaustedError(
        fmt::format("the primary has more than {} databases", kCatalogDatabasesMax));
  }
  for (const v1::DatabasePosition& message : base.databases()) {
    ECHOFS_ASSIGN_OR_RETURN(DatabasePosition position, FromMessage(message));
    if (position.index.value > base.index()) {
      return absl::InvalidArgumentError("the primary's log base is older than its databases");
    }
    catalog_.push_back(std::move(position));
  }
  if (base.more()) return absl::OkStatus();
  ECHOFS_RETURN_IF_ERROR(ResetLog({base.index()}, {base.term()}));
  StartAcknowledging();
  return absl::OkStatus();
}

absl::Status ReplicaStream::ResetLog(LogIndex index, Term term) {
  std::set<std::string_view> names;
  for (const DatabasePosition& position : catalog_) {
    if (!names.insert(position.name).second) {
      return absl::InvalidArgumentError("the primary named a database twice");
    }
  }
  const LogIndex last = log_->last_index();
  if (last.value == 0) {
    spdlog::info("joining after entry {}: copying {} databases", index.value, catalog_.size());
  } else {
    spdlog::warn(
        "this node's log, which ends at entry {} of term {}, cannot be continued from the "
        "primary's "
        "(it is too old, or has entries that the primary lacks): the log starts anew after entry "
        "{} "
        "of term {}, and databases that differ are copied",
        last.value, log_->last_term().value, index.value, term.value);
  }
  const LogState base{index, term, catalog_};
  const CommonPoint common = Common();
  return queue_->Rebase([&] { return RestartLog(Context(), common, base, primary_terms_); });
}

absl::Status ReplicaStream::ReceiveChunk(const v1::RecordChunk& chunk) {
  if (chunk.data().empty() || chunk.data().size() > kRecordChunkSizeMax) {
    return absl::InvalidArgumentError(
        fmt::format("the primary sent a chunk of {} bytes", chunk.data().size()));
  }
  if (receiver_ == nullptr) StartAcknowledging();
  ECHOFS_RETURN_IF_ERROR(receiver_->Receive(AsBytes(chunk.data())));
  if (chunk.last() != receiver_->at_boundary()) {
    return absl::DataLossError("a chunk from the primary does not end where it says");
  }
  return absl::OkStatus();
}

void ReplicaStream::StartAcknowledging() {
  receiver_ = std::make_unique<RecordReceiver>(
      log_, primary_term_, [this](const LogEntry& entry, RecordReceiver::Payload payload) {
        queue_->Enqueue(entry, std::move(payload));
        absl::MutexLock lock(&mutex_);
        received_ = true;
      });
  absl::MutexLock lock(&mutex_);
  acknowledging_ = true;
  received_ = true;
}

void ReplicaStream::Progress() {
  absl::MutexLock lock(&mutex_);
  applied_ = true;
}

void ReplicaStream::AcknowledgeLoop() {
  absl::Status status;
  while (status.ok() && WaitForWork()) status = SyncAndAcknowledge();
  absl::MutexLock lock(&mutex_);
  if (!status.ok()) failure_ = std::move(status);
  if (!failure_.ok()) call_->Cancel();
}

// True when there is something to sync or to acknowledge, false when the stream is at its end.
bool ReplicaStream::WaitForWork() {
  absl::MutexLock lock(&mutex_);
  const auto work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return closing_ || (acknowledging_ && (received_ || applied_));
  };
  bool found = false;
  while (!found) {
    found = mutex_.AwaitWithTimeout(absl::Condition(&work), kHeartbeatInterval);
    if (!closing_ && absl::Now() - reading_since_ > kStreamSilenceMax) {
      failure_ = absl::UnavailableError(fmt::format("the primary has said nothing for {} seconds",
                                                    absl::ToInt64Seconds(kStreamSilenceMax)));
      return false;
    }
  }
  if (!received_ && !closing_) {
    // News of applied entries alone are not urgent.
    const auto urgent = [this]()
                            ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return closing_ || received_; };
    mutex_.AwaitWithTimeout(absl::Condition(&urgent), kAppliedAckDelay);
  }
  // What comes meanwhile is in the same sync.
  if (!synchronous_) {
    mutex_.AwaitWithDeadline(absl::Condition(&closing_), last_sync_ + kReplicaSyncInterval);
  }
  received_ = false;
  applied_ = false;
  return !closing_;
}

absl::Status ReplicaStream::SyncAndAcknowledge() {
  const LogIndex last = log_->last_index();
  if (last != synced_) {
    last_sync_ = absl::Now();
    ECHOFS_RETURN_IF_ERROR(log_->Sync(last));
    synced_ = last;
  }
  const LogIndex applied = queue_->applied_index();
  if (acked_once_ && synced_ == acked_synced_ && applied == acked_applied_) return absl::OkStatus();
  v1::FollowRequest request;
  request.mutable_ack()->set_synced_index(synced_.value);
  request.mutable_ack()->set_applied_index(applied.value);
  request.mutable_ack()->set_term(primary_term_.value);
  // A failed write means that the stream is dead, which the receiving thread finds out.
  Failpoint("apply.receive_ack.before");
  call_->Write(request);
  Failpoint("apply.receive_ack.after");
  acked_synced_ = synced_;
  acked_applied_ = applied;
  acked_once_ = true;
  return absl::OkStatus();
}

}  // namespace echofs
