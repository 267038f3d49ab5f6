#include "replication/follow_session.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "echofs/v1/replication.pb.h"
#include "replication/limits.h"
#include "replication/silence_timer.h"
#include "replication/status_macros.h"
#include "replication/wire.h"

namespace echofs {
namespace {

absl::Status ReplicaGone() { return absl::CancelledError("the replica has gone"); }

}  // namespace

bool SendWindow::WaitForRoom(std::uint64_t size, absl::Time deadline) {
  absl::MutexLock lock(&mutex_);
  const auto has_room = [this, size]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return closed_ || in_flight_.empty() || bytes_ + size <= kUnacknowledgedSizeMax;
  };
  return mutex_.AwaitWithDeadline(absl::Condition(&has_room), deadline) && !closed_;
}

void SendWindow::Sent(LogIndex index, std::uint64_t size) {
  absl::MutexLock lock(&mutex_);
  if (index < sent_) index = sent_;
  sent_ = index;
  bytes_ += size;
  if (!in_flight_.empty() && in_flight_.back().index == index) {
    in_flight_.back().size += size;
  } else {
    in_flight_.push_back({index, size});
  }
}

absl::Status SendWindow::Acknowledged(LogIndex index) {
  absl::MutexLock lock(&mutex_);
  if (index > sent_) {
    return absl::InvalidArgumentError(
        fmt::format("it acknowledged entry {}, but was sent up to {}", index.value, sent_.value));
  }
  while (!in_flight_.empty() && in_flight_.front().index <= index) {
    bytes_ -= in_flight_.front().size;
    in_flight_.pop_front();
  }
  return absl::OkStatus();
}

void SendWindow::Start(LogIndex index) {
  absl::MutexLock lock(&mutex_);
  sent_ = index;
}

void SendWindow::Close() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
}

bool SendWindow::closed() const {
  absl::MutexLock lock(&mutex_);
  return closed_;
}

std::uint64_t SendWindow::in_flight_bytes() const {
  absl::MutexLock lock(&mutex_);
  return bytes_;
}

// A message in the making.
struct FollowSession::Outgoing {
  v1::FollowResponse message;
  LogIndex completed;  // last entry whose record ends in what was put in so far

  std::string& data() { return *message.mutable_chunk()->mutable_data(); }
  bool empty() const { return !message.has_chunk() || message.chunk().data().empty(); }
};

FollowSession::FollowSession(const PrimaryIdentity& identity, const ChangeLog* log,
                             FollowServerStream* stream, const std::atomic<bool>* stopping,
                             Callbacks callbacks)
    : identity_(identity),
      log_(log),
      stream_(stream),
      stopping_(stopping),
      callbacks_(std::move(callbacks)) {}

absl::Status FollowSession::Run() {
  v1::FollowRequest request;
  SilenceTimer timer(kHelloTimeout, [this] { stream_->Cancel(); });
  const bool read = stream_->Read(&request);
  ECHOFS_RETURN_IF_ERROR(timer.Stop());
  if (!read) return ReplicaGone();
  if (!request.has_hello()) return absl::InvalidArgumentError("the first message must be a Hello");
  const v1::Hello& hello = request.hello();
  ECHOFS_RETURN_IF_ERROR(CheckHello(hello));
  name_ = hello.node();
  ECHOFS_RETURN_IF_ERROR(callbacks_.joined(hello));
  if (!SendHello()) return ReplicaGone();
  ECHOFS_ASSIGN_OR_RETURN(const LogIndex next, SendStart(hello));
  window_.Start(next.Previous());

  std::thread reader([this] { ReadAcknowledgements(); });
  const absl::Status status = SendLog(next);
  stream_->Cancel();  // ends the reader; the replica sees CANCELLED and connects again
  reader.join();
  return status;
}

absl::Status FollowSession::CheckHello(const v1::Hello& hello) const {
  if (hello.node().empty() || hello.node().size() > kIdentitySizeMax ||
      hello.address().size() > kIdentitySizeMax || hello.version().size() > kIdentitySizeMax ||
      hello.cluster_id().size() > kIdentitySizeMax) {
    return absl::InvalidArgumentError("the Hello names no node, or has an oversized field");
  }
  if (hello.protocol_version() != kProtocolVersion) {
    return absl::FailedPreconditionError(fmt::format(
        "node {} (echofs {}) speaks protocol version {}, primary {} (echofs {}) speaks {}: run the "
        "same version of echofs on both",
        hello.node(), hello.version(), hello.protocol_version(), identity_.node_id,
        identity_.version, kProtocolVersion));
  }
  if (!hello.cluster_id().empty() && hello.cluster_id() != identity_.cluster_id) {
    return absl::FailedPreconditionError(fmt::format(
        "node {} belongs to another cluster ({}) than primary {} ({}), so their histories have "
        "nothing in common. If {} is to join this cluster: stop it, move its data directory away "
        "and "
        "start it again, it then copies every database. Otherwise correct the primary's address in "
        "its configuration",
        hello.node(), hello.cluster_id(), identity_.node_id, identity_.cluster_id, hello.node()));
  }
  // R1: a node that has seen a higher term than ours knows that we are not the primary any more.
  if (hello.term() > identity_.term.value) {
    return absl::FailedPreconditionError(fmt::format(
        "node {} has seen term {}, primary {} is at term {} and so is behind it. If {} was "
        "restored "
        "from an older backup and is to be the primary: stop {}, move its data directory away and "
        "start it again",
        hello.node(), hello.term(), identity_.node_id, identity_.term.value, identity_.node_id,
        hello.node()));
  }
  return absl::OkStatus();
}

bool FollowSession::SendHello() {
  v1::FollowResponse response;
  v1::Hello* hello = response.mutable_hello();
  hello->set_protocol_version(kProtocolVersion);
  hello->set_cluster_id(identity_.cluster_id);
  hello->set_node(identity_.node_id);
  hello->set_address(identity_.address);
  hello->set_version(identity_.version);
  hello->set_term(identity_.term.value);
  hello->set_synchronous(identity_.synchronous);
  ends_.first = log_->first_index();
  ends_.last = log_->last_index();
  terms_ = log_->Terms();
  const absl::StatusOr<Term> last_term = log_->TermAt(ends_.last);
  ends_.last_term = last_term.ok() ? *last_term : identity_.term;
  ToMessage(ends_, terms_, hello);
  return stream_->Write(response);
}

absl::StatusOr<LogIndex> FollowSession::SendStart(const v1::Hello& hello) {
  const LogIndex replica_last{hello.last_index()};
  ECHOFS_ASSIGN_OR_RETURN(const TermHistory replica, TermsFromMessage(hello));
  const CommonPoint common = FindCommonPoint(terms_, ends_.last, replica, replica_last);
  if (!common.known) {
    // A log of an older format. The same term at the same index: the same log up to there (L3).
    const absl::StatusOr<Term> term = log_->TermAt(replica_last);
    const bool same = replica_last <= ends_.last && term.ok() && term->value == hello.last_term();
    return same ? replica_last.Next() : SendBase(hello);
  }
  // Both logs must reach back to it: this one to send what follows, the replica's to be cut there.
  const LogIndex next = common.index.Next();
  if (next < log_->first_index() || next.value < hello.first_index()) return SendBase(hello);
  if (common.index == replica_last) return next;
  return SendRewind(common, hello);
}

absl::StatusOr<LogIndex> FollowSession::SendRewind(const CommonPoint& common,
                                                   const v1::Hello& hello) {
  spdlog::info(
      "replica {} stands at entry {} of term {}, which is not in this history: the two part after "
      "entry {} of term {}",
      name_, hello.last_index(), hello.last_term(), common.index.value, common.term.value);
  v1::FollowResponse response;
  response.mutable_rewind()->set_index(common.index.value);
  response.mutable_rewind()->set_term(common.term.value);
  if (!stream_->Write(response)) return ReplicaGone();
  return common.index.Next();
}

absl::StatusOr<LogIndex> FollowSession::SendBase(const v1::Hello& hello) {
  const LogState state = log_->State();
  spdlog::info(
      "replica {} stands at entry {} of term {}, from which this log (entries {} to {}) cannot go "
      "on: it starts anew after entry {} and copies what differs of {} databases",
      name_, hello.last_index(), hello.last_term(), log_->first_index().value,
      log_->last_index().value, state.index.value, state.databases.size());
  std::size_t sent = 0;
  do {
    v1::FollowResponse response;
    v1::LogBase* base = response.mutable_base();
    base->set_index(state.index.value);
    base->set_term(state.term.value);
    while (sent < state.databases.size() && base->databases_size() < kCatalogChunkDatabasesMax) {
      ToMessage(state.databases[sent++], base->add_databases());
    }
    base->set_more(sent < state.databases.size());
    if (!stream_->Write(response)) return ReplicaGone();
  } while (sent < state.databases.size());
  return state.index.Next();
}

bool FollowSession::Ended() const {
  return stopping_->load() || stream_->cancelled() || window_.closed();
}

bool FollowSession::Flush(Outgoing& out) {
  if (out.empty()) return true;
  const std::uint64_t size = out.data().size();
  // Counted before it is sent: the acknowledgement may be quicker than the return from Write.
  window_.Sent(out.completed, size);
  const bool written = stream_->Write(out.message);
  out.data().clear();
  return written;
}

bool FollowSession::KeepAlive(Outgoing& out) {
  const absl::Time now = absl::Now();
  if (now < heartbeat_due_) return true;
  heartbeat_due_ = now + kHeartbeatInterval;
  return Flush(out) && SendHeartbeat();
}

absl::Status FollowSession::SendLog(LogIndex next) {
  const std::unique_ptr<LogReader> reader = log_->Read(next);
  Outgoing out;
  out.completed = next.Previous();
  absl::Time sent = absl::InfinitePast();  // when the end of the log was last reached and sent
  while (!Ended()) {
    if (!KeepAlive(out)) return ReplicaGone();
    ECHOFS_ASSIGN_OR_RETURN(const bool more, SendEntries(*reader, out, &next));
    if (more) continue;
    const absl::Time now = absl::Now();
    if (!out.empty()) sent = now;
    if (!Flush(out)) return ReplicaGone();
    log_->WaitForIndex(next, std::min(heartbeat_due_, now + kStopCheckInterval));
    // Never longer, though the clock be set back.
    if (!identity_.synchronous) {
      absl::SleepFor(std::min(kSendInterval, sent + kSendInterval - absl::Now()));
    }
  }
  return ReplicaGone();
}

absl::StatusOr<bool> FollowSession::SendEntries(LogReader& reader, Outgoing& out, LogIndex* next) {
  constexpr int kEntriesMax = 64;  // before the session looks around
  for (int i = 0; i < kEntriesMax; ++i) {
    ECHOFS_ASSIGN_OR_RETURN(const std::optional<LogEntry> entry, reader.Next());
    if (!entry) return false;
    while (!window_.WaitForRoom(entry->RecordSize() + out.data().size(), absl::InfinitePast())) {
      if (!Flush(out) || Ended() || !KeepAlive(out)) return ReplicaGone();
      window_.WaitForRoom(entry->RecordSize(), absl::Now() + kStopCheckInterval);
    }
    ECHOFS_RETURN_IF_ERROR(SendRecord(reader, *entry, out));
    *next = entry->index.Next();
  }
  return true;
}

absl::Status FollowSession::SendRecord(LogReader& reader, const LogEntry& entry, Outgoing& out) {
  const std::unique_ptr<ByteSource> record = reader.Record();
  std::uint64_t rest = entry.RecordSize();
  v1::RecordChunk* chunk = out.message.mutable_chunk();
  while (rest > 0) {
    std::string& data = *chunk->mutable_data();
    const std::size_t begin = data.size();
    const std::size_t size =
        static_cast<std::size_t>(std::min<std::uint64_t>(rest, kRecordChunkSizeMax - begin));
    data.resize(begin + size);
    ECHOFS_RETURN_IF_ERROR(ReadExactly(
        *record, MutableByteView(reinterpret_cast<std::uint8_t*>(data.data()) + begin, size)));
    rest -= size;
    if (rest == 0) out.completed = entry.index;
    chunk->set_last(rest == 0);
    if (data.size() < kRecordChunkSizeMax) break;
    window_.Sent(out.completed, data.size());
    if (!stream_->Write(out.message)) return ReplicaGone();
    data.clear();
  }
  return absl::OkStatus();
}

bool FollowSession::SendHeartbeat() {
  v1::FollowResponse response;
  v1::Heartbeat* heartbeat = response.mutable_heartbeat();
  heartbeat->set_term(identity_.term.value);
  heartbeat->set_last_index(log_->last_index().value);
  heartbeat->set_time_ms(absl::ToUnixMillis(absl::Now()));
  return stream_->Write(response);
}

void FollowSession::ReadAcknowledgements() {
  v1::FollowRequest request;
  while (stream_->Read(&request)) {
    if (!request.has_ack()) {
      spdlog::warn("replica {} sent something else than an acknowledgement: disconnecting it",
                   name_);
      break;
    }
    // R1. Zero: a replica of an older version.
    if (request.ack().term() != identity_.term.value && request.ack().term() != 0) {
      spdlog::warn("replica {} acknowledged for term {}, this is term {}: disconnecting it", name_,
                   request.ack().term(), identity_.term.value);
      break;
    }
    const LogIndex synced{request.ack().synced_index()};
    if (absl::Status status = window_.Acknowledged(synced); !status.ok()) {
      spdlog::warn("replica {}: {}: disconnecting it", name_, std::string(status.message()));
      break;
    }
    callbacks_.acknowledged(synced, {request.ack().applied_index()});
  }
  window_.Close();
  stream_->Cancel();
}

}  // namespace echofs
