#include "tests/simulation/sender.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "replication/status_macros.h"
#include "tests/simulation/process.h"

namespace echofs::sim {
namespace {

constexpr Moment kHeartbeat = 250 * kMillisecond;    // kHeartbeatInterval
constexpr Moment kSilenceMax = 1500 * kMillisecond;  // keepalive
constexpr std::uint64_t kInFlightMax = 20;           // records; kUnacknowledgedSizeMax

}  // namespace

absl::Time Sender::Now() const { return process_->now(); }

void Sender::Start(Term term) {
  Stop();
  term_ = term;
  began_at_ = process_->log().last_index();
  began_ = Now();
  Beat();
}

void Sender::Stop() {
  while (!sessions_.empty()) End(sessions_.begin()->first, absl::UnavailableError("it stops"));
  term_ = {};
  ++tenure_;
  followers_.clear();
  appended_at_.clear();
}

void Sender::Send(StreamId stream, Endpoint to, Message message) {
  if (!process_->node().disk().powered()) return;
  process_->world().network.Send(stream, process_->node().number(), to, std::move(message));
}

void Sender::End(StreamId stream, const absl::Status& why) {
  const auto found = sessions_.find(stream);
  if (found == sessions_.end()) return;
  const Session& session = found->second;
  process_->world().Trace("{}: ends the stream of {}: {}", process_->node().id(), session.node_id,
                          why.ToString());
  Send(stream, session.end, Close());
  Follower& follower = followers_[session.node_id];
  if (follower.stream == stream) follower.stream = 0;
  sessions_.erase(found);
  process_->FollowersChanged();
}

bool Sender::OnMessage(Endpoint from, StreamId stream, const Message& message) {
  if (const Hello* hello = std::get_if<Hello>(&message)) {
    const absl::Status status = OnHello(from, stream, *hello);
    if (!status.ok()) {
      process_->world().Trace("{}: refuses {}: {}", process_->node().id(), hello->node_id,
                              status.ToString());
      Send(stream, from, Close());
    }
    return true;
  }
  const auto found = sessions_.find(stream);
  if (found == sessions_.end()) return false;
  Session& session = found->second;
  session.last_heard = process_->world().scheduler.now();
  absl::Status status;
  if (const Ack* ack = std::get_if<Ack>(&message)) {
    status = OnAck(&session, ack->synced);
  } else if (const FetchDatabase* fetch = std::get_if<FetchDatabase>(&message)) {
    absl::StatusOr<DatabaseCopy> copy = process_->databases().Copy(fetch->database);
    if (copy.ok()) Send(stream, from, *std::move(copy));
  } else {
    status = absl::UnavailableError("the replica closed it");
  }
  if (!status.ok()) End(stream, status);
  return true;
}

void Sender::OnBroken(StreamId stream) { End(stream, absl::UnavailableError("the stream broke")); }

absl::Status Sender::OnHello(Endpoint from, StreamId stream, const Hello& hello) {
  if (term_.value == 0) return absl::UnavailableError("this node is not the primary");
  // R1: a node that has seen a higher term knows that we are not the primary any more.
  if (hello.term > term_)
    return absl::FailedPreconditionError("the replica has seen a higher term");
  Follower& follower = followers_[hello.node_id];
  if (follower.stream != 0) End(follower.stream, absl::CancelledError("it has connected anew"));
  follower = {hello.address, {}, follower.acked_before, stream};
  ChangeLog& log = process_->log();
  Hello own;
  own.node_id = process_->node().id();
  own.address = process_->node().address();
  own.term = term_;
  own.first_index = log.first_index();
  own.last = process_->log_end();
  own.history = log.Terms();
  Send(stream, from, std::move(own));
  Session session;
  session.end = from;
  session.node_id = hello.node_id;
  session.next = Place(from, stream, hello);
  session.allowed = session.start = session.next.Previous();
  session.last_heard = process_->world().scheduler.now();
  session.reader = log.Read(session.next);
  sessions_[stream] = std::move(session);
  Send(stream, from, Heartbeat{term_});
  process_->FollowersChanged();
  return absl::OkStatus();
}

LogIndex Sender::Place(Endpoint to, StreamId stream, const Hello& hello) {
  ChangeLog& log = process_->log();
  const CommonPoint common =
      FindCommonPoint(log.Terms(), log.last_index(), hello.history, hello.last.index);
  const bool in_both = common.known && common.index.Next() >= log.first_index() &&
                       common.index.Next() >= hello.first_index;
  if (in_both) {
    if (common.index < hello.last.index) {
      Send(stream, to, Rewind{{common.term, common.index}});
    }
    return common.index.Next();
  }
  Base base{log.State()};
  const LogIndex next = base.state.index.Next();
  Send(stream, to, std::move(base));
  return next;
}

absl::Status Sender::OnAck(Session* session, LogIndex synced) {
  if (synced > session->allowed) return absl::InvalidArgumentError("it acknowledged too much");
  session->acked = std::max(session->acked, synced);
  Follower& follower = followers_[session->node_id];
  follower.acked = session->acked;
  follower.acked_before = std::max(follower.acked_before, follower.acked);
  process_->FollowersChanged();
  return absl::OkStatus();
}

void Sender::Pump() {
  std::vector<std::pair<StreamId, absl::Status>> failed;
  for (auto& [stream, session] : sessions_) {
    if (absl::Status status = SendRecords(stream, &session); !status.ok()) {
      failed.emplace_back(stream, status);
    }
  }
  for (const auto& [stream, status] : failed) End(stream, status);
}

absl::Status Sender::SendRecords(StreamId stream, Session* session) {
  const LogIndex last = process_->log().last_index();
  while (session->next <= last &&
         session->next.value <= std::max(session->acked, session->start).value + kInFlightMax) {
    ECHOFS_ASSIGN_OR_RETURN(const std::optional<LogEntry> entry, session->reader->Next());
    if (!entry) return absl::OkStatus();
    std::vector<std::uint8_t> bytes(entry->RecordSize());
    const std::unique_ptr<ByteSource> record = session->reader->Record();
    ECHOFS_RETURN_IF_ERROR(ReadExactly(*record, bytes));
    Send(stream, session->end,
         Record{std::make_shared<const std::vector<std::uint8_t>>(std::move(bytes))});
    session->allowed = entry->index;
    session->next = entry->index.Next();
  }
  return absl::OkStatus();
}

void Sender::Beat() {
  const Moment now = process_->world().scheduler.now();
  std::vector<StreamId> silent;
  for (const auto& [stream, session] : sessions_) {
    if (now - session.last_heard > kSilenceMax) {
      silent.push_back(stream);
    } else {
      Send(stream, session.end, Heartbeat{term_});
    }
  }
  for (const StreamId stream : silent) End(stream, absl::UnavailableError("silence"));
  process_->After(kHeartbeat, [this, tenure = tenure_] {
    if (tenure == tenure_) Beat();
  });
}

absl::Duration Sender::LagOf(LogIndex acked) const {
  if (acked >= process_->log().last_index()) return absl::ZeroDuration();
  absl::Time since = began_;
  if (acked >= began_at_) since = appended_at_.at(acked.value - began_at_.value);
  return Now() - since;
}

std::vector<FollowerProgress> Sender::Followers() const {
  std::vector<FollowerProgress> followers;
  for (const auto& [id, follower] : followers_) {
    followers.push_back(
        {id, follower.address, follower.stream != 0, follower.acked, LagOf(follower.acked_before)});
  }
  return followers;
}

}  // namespace echofs::sim
