// A simulated primary's end of the streams to its replicas. Counterparts: replication/primary (who follows, how far) and
// follow_session (one replica: where it can go on, the log byte for byte, its acknowledgements).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "replication/role_machine.h"
#include "tests/simulation/messages.h"
#include "tests/simulation/network.h"

namespace echofs::sim {

class Process;

class Sender {
 public:
  explicit Sender(Process* process) : process_(process) {}

  // Serves replicas as the primary of `term`, which is open in the log.
  void Start(Term term);
  void Stop();
  // A new entry of this tenure is in the log.
  void Appended() { appended_at_.push_back(Now()); }
  // False when the stream is not one of its own, and the message does not begin one.
  bool OnMessage(Endpoint from, StreamId stream, const Message& message);
  void OnBroken(StreamId stream);
  // Sends what is new.
  void Pump();
  std::vector<FollowerProgress> Followers() const;

 private:
  struct Session {
    Endpoint end = 0;
    std::string node_id;
    LogIndex start;    // where the replica stood when the stream began
    LogIndex next;     // to be sent
    LogIndex allowed;  // it may acknowledge up to here: it has it, or was sent it
    LogIndex acked;
    Moment last_heard = 0;
    std::unique_ptr<LogReader> reader;  // at `next`
  };
  struct Follower {
    std::string address;
    LogIndex acked;         // on its newest stream
    LogIndex acked_before;  // on any
    StreamId stream = 0;    // 0: not connected
  };

  absl::Time Now() const;
  absl::Status OnHello(Endpoint from, StreamId stream, const Hello& hello);
  // Where the replica goes on; sends Rewind or Base when it must.
  LogIndex Place(Endpoint to, StreamId stream, const Hello& hello);
  absl::Status OnAck(Session* session, LogIndex synced);
  absl::Status SendRecords(StreamId stream, Session* session);
  void Beat();
  void End(StreamId stream, const absl::Status& why);
  void Send(StreamId stream, Endpoint to, Message message);
  absl::Duration LagOf(LogIndex acked) const;

  Process* const process_;
  Term term_;  // zero: does not serve
  std::uint64_t tenure_ = 0;
  LogIndex began_at_;  // end of the log at Start
  absl::Time began_;
  std::vector<absl::Time> appended_at_;  // of the entries after began_at_
  std::map<StreamId, Session> sessions_;
  std::map<std::string, Follower> followers_;  // by node id
};

}  // namespace echofs::sim
