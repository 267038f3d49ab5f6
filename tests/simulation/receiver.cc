#include "tests/simulation/receiver.h"

#include <fmt/format.h>

#include <utility>

#include "replication/status_macros.h"
#include "tests/simulation/judge.h"
#include "tests/simulation/process.h"

namespace echofs::sim {
namespace {

constexpr Moment kSilenceMax = 1500 * kMillisecond;  // kStreamSilenceMax
constexpr Moment kSilenceCheck = 300 * kMillisecond;
constexpr Moment kReconnectDelayMax = 300 * kMillisecond;

}  // namespace

void Receiver::Follow(Endpoint primary) {
  Stop();
  primary_ = primary;
  Connect();
}

void Receiver::Stop() {
  primary_ = -1;
  Disconnect(absl::CancelledError("it follows another or nobody"));
}

void Receiver::Connect() {
  if (primary_ < 0 || stream_ != 0) return;
  stream_ = process_->world().network.NewStream();
  stream_end_ = Address();
  last_heard_ = process_->world().scheduler.now();
  greeted_ = false;
  Hello hello;
  hello.node_id = process_->node().id();
  hello.address = process_->node().address();
  hello.term = process_->seen_term();
  hello.first_index = process_->log().first_index();
  hello.last = process_->log_end();
  hello.history = process_->log().Terms();
  Send(std::move(hello));
  WatchSilence(stream_);
}

// Where a connection to the primary ends: an address may belong to another node by now.
Endpoint Receiver::Address() {
  World& world = process_->world();
  if (world.faults_over || !world.random.Chance(world.options.wrong_address_per_mille)) {
    return primary_;
  }
  const int others = world.options.nodes - 1;
  return (process_->node().number() + 1 + static_cast<int>(world.random.Below(others))) %
         world.options.nodes;
}

void Receiver::Disconnect(const absl::Status& why) {
  records_ = nullptr;
  fetching_.clear();
  if (stream_ != 0) {
    process_->world().Trace("{}: leaves its stream: {}", process_->node().id(), why.ToString());
    Send(Close());
    stream_ = 0;
  }
  if (primary_ < 0) return;
  const std::uint64_t attempt = ++attempt_;
  process_->After(process_->world().random.Between(kMillisecond, kReconnectDelayMax),
                  [this, attempt] {
                    if (attempt == attempt_) Connect();
                  });
}

void Receiver::WatchSilence(StreamId stream) {
  process_->After(kSilenceCheck, [this, stream] {
    if (stream != stream_) return;
    if (process_->world().scheduler.now() - last_heard_ > kSilenceMax) {
      Disconnect(absl::UnavailableError("silence"));
    } else {
      WatchSilence(stream);
    }
  });
}

bool Receiver::OnMessage(StreamId stream, const Message& message) {
  if (stream_ == 0 || stream != stream_) return false;
  last_heard_ = process_->world().scheduler.now();
  if (absl::Status status = Receive(message); !status.ok()) Disconnect(status);
  return true;
}

void Receiver::OnBroken(StreamId stream) {
  if (stream_ != 0 && stream == stream_) Disconnect(absl::UnavailableError("the stream broke"));
}

absl::Status Receiver::Receive(const Message& message) {
  if (std::holds_alternative<Close>(message))
    return absl::UnavailableError("the primary closed it");
  if (const Hello* hello = std::get_if<Hello>(&message)) return OnHello(*hello);
  if (!greeted_) return absl::InvalidArgumentError("the primary sent no Hello");
  // R1: this node has heard of a newer primary since.
  if (hello_.term < process_->seen_term()) return absl::FailedPreconditionError("an old primary");
  if (const Rewind* rewind = std::get_if<Rewind>(&message)) return OnRewind(*rewind);
  if (const Base* base = std::get_if<Base>(&message)) return OnBase(*base);
  if (const Record* record = std::get_if<Record>(&message)) return OnRecord(*record);
  if (const Heartbeat* heartbeat = std::get_if<Heartbeat>(&message)) {
    if (heartbeat->term != hello_.term) return absl::InvalidArgumentError("another term");
    if (records_ == nullptr) StartAcknowledging();
    Acknowledge();
    FetchIncomplete();
    return absl::OkStatus();
  }
  if (const DatabaseCopy* copy = std::get_if<DatabaseCopy>(&message)) {
    fetching_.erase(copy->position.name);
    process_->databases().Offer(*copy);
    ++process_->world().counts.copies;
    return LogChanged();
  }
  return absl::InvalidArgumentError("the primary sent an unexpected message");
}

absl::Status Receiver::OnHello(const Hello& hello) {
  // R1: a term below one that we have seen is of a primary that is none any more.
  if (hello.term < process_->seen_term()) return absl::FailedPreconditionError("an old primary");
  process_->SawTerm(hello.term);
  hello_ = hello;
  greeted_ = true;
  return absl::OkStatus();
}

absl::Status Receiver::OnRewind(const Rewind& rewind) {
  if (records_ != nullptr) return absl::InvalidArgumentError("a rewind after records");
  ChangeLog& log = process_->log();
  const absl::StatusOr<Term> term = log.TermAt(rewind.to.index);
  if (!term.ok() || *term != rewind.to.term) return absl::DataLossError("a rewind to another log");
  Judge& judge = *process_->world().judge;
  judge.OnCutBegins(*process_, rewind.to, hello_.last);
  const CommonPoint common{true, rewind.to.index, rewind.to.term};
  ECHOFS_RETURN_IF_ERROR(RewindLog(Context(), common).status());
  judge.OnCutDone(*process_);
  process_->databases().LogWasCut(rewind.to.index);
  ++process_->world().counts.rewinds;
  ECHOFS_RETURN_IF_ERROR(LogChanged());
  StartAcknowledging();
  Acknowledge();
  return absl::OkStatus();
}

absl::Status Receiver::OnBase(const Base& base) {
  if (records_ != nullptr) return absl::InvalidArgumentError("a base after records");
  ChangeLog& log = process_->log();
  const CommonPoint common =
      FindCommonPoint(log.Terms(), log.last_index(), hello_.history, hello_.last.index);
  Judge& judge = *process_->world().judge;
  judge.OnCutBegins(*process_, {}, {base.state.term, base.state.index});
  // The log cannot lead to the states of the databases any more, so those that stay must be durable.
  ECHOFS_RETURN_IF_ERROR(log.Sync(log.last_index()));
  ECHOFS_RETURN_IF_ERROR(process_->databases().SyncAll());
  ECHOFS_RETURN_IF_ERROR(RestartLog(Context(), common, base.state, hello_.history).status());
  judge.OnCutDone(*process_);
  process_->databases().LogWasReset();
  ++process_->world().counts.bases;
  ECHOFS_RETURN_IF_ERROR(LogChanged());
  StartAcknowledging();
  Acknowledge();
  return absl::OkStatus();
}

RewindContext Receiver::Context() {
  return {&process_->log(), &process_->databases(), &process_->orphans(), hello_.node_id,
          hello_.term};
}

absl::Status Receiver::OnRecord(const Record& record) {
  if (records_ == nullptr) StartAcknowledging();
  ECHOFS_RETURN_IF_ERROR(records_->Receive(*record.bytes));
  ECHOFS_RETURN_IF_ERROR(LogChanged());
  process_->RequestSync();
  return absl::OkStatus();
}

// What comes of new entries, or of fewer.
absl::Status Receiver::LogChanged() {
  if (!process_->node().disk().powered()) return absl::OkStatus();
  absl::Status applied = process_->databases().ApplyLog();
  if (!applied.ok() && !absl::IsResourceExhausted(applied) && process_->node().disk().powered()) {
    process_->world().Fail(process_->node().id() + " cannot apply: " + applied.ToString());
  }
  FetchIncomplete();
  return applied;
}

void Receiver::FetchIncomplete() {
  for (const std::string& name : process_->databases().incomplete()) {
    if (fetching_.insert(name).second) Send(FetchDatabase{name});
  }
}

void Receiver::StartAcknowledging() {
  records_ = std::make_unique<RecordReceiver>(
      &process_->log(), hello_.term, [this](const LogEntry& entry, const RecordReceiver::Payload&) {
        process_->OnAppended(entry, false);
      });
}

void Receiver::OnSynced() {
  if (records_ != nullptr) Acknowledge();
}

void Receiver::Acknowledge() { Send(Ack{process_->log().synced_index()}); }

void Receiver::Send(Message message) {
  if (!process_->node().disk().powered()) return;
  process_->world().network.Send(stream_, process_->node().number(), stream_end_,
                                 std::move(message));
}

}  // namespace echofs::sim
