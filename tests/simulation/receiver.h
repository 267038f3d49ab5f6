// A simulated replica's end of the stream from its primary. Counterparts: replication/replica (connects, again and again)
// and replica_stream (one stream: Hello, Rewind or Base, records, acknowledgements of what is on disk).
#pragma once

#include <memory>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "replication/log_rewind.h"
#include "replication/record_receiver.h"
#include "tests/simulation/messages.h"
#include "tests/simulation/network.h"

namespace echofs::sim {

class Process;

class Receiver {
 public:
  explicit Receiver(Process* process) : process_(process) {}

  // Follows this node, leaving any other.
  void Follow(Endpoint primary);
  // When it returns, the log does not grow any more.
  void Stop();
  // False when the stream is not the one of this end.
  bool OnMessage(StreamId stream, const Message& message);
  void OnBroken(StreamId stream);
  // The log was synced: acknowledges.
  void OnSynced();
  bool following() const { return primary_ >= 0; }

 private:
  void Connect();
  Endpoint Address();
  void Disconnect(const absl::Status& why);
  void WatchSilence(StreamId stream);
  absl::Status Receive(const Message& message);
  absl::Status OnHello(const Hello& hello);
  absl::Status OnRewind(const Rewind& rewind);
  absl::Status OnBase(const Base& base);
  absl::Status OnRecord(const Record& record);
  RewindContext Context();
  absl::Status LogChanged();
  void StartAcknowledging();
  void Acknowledge();
  void FetchIncomplete();
  void Send(Message message);

  Process* const process_;
  Endpoint primary_ = -1;    // -1: follows nobody
  StreamId stream_ = 0;      // 0: not connected
  Endpoint stream_end_ = 0;  // who is at its other end
  std::uint64_t attempt_ = 0;
  Moment last_heard_ = 0;
  bool greeted_ = false;  // the primary's Hello has come
  Hello hello_;
  std::unique_ptr<RecordReceiver> records_;  // once the log is what it should be
  std::set<std::string> fetching_;           // copies asked for on this stream
};

}  // namespace echofs::sim
