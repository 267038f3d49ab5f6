// One replica that follows this primary: finds out where it can go on, sends it the log byte for
// byte (L3) as soon as entries appear, and reads its acknowledgements.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "replication/change_log.h"
#include "replication/log_match.h"
#include "replication/transport.h"
#include "replication/wire.h"

namespace echofs::v1 {
class Ack;
class Hello;
}  // namespace echofs::v1

namespace echofs {

// Who a primary is, for its Hello.
struct PrimaryIdentity {
  std::string cluster_id;
  std::string node_id;
  std::string address;       // grpc.advertise
  std::string version;       // of the program
  Term term;                 // of this tenure
  bool synchronous = false;  // commits wait for acknowledgements (D1)
};

// Records that were sent and not acknowledged yet; bounds them by kUnacknowledgedSizeMax.
// Thread-safe.
class SendWindow {
 public:
  // Waits until a record of `size` bytes may be sent: when it fits, or nothing is in flight. False
  // at the deadline, or when the window was closed.
  bool WaitForRoom(std::uint64_t size, absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);
  // `size` more bytes were sent, which completed the records up to `index`.
  void Sent(LogIndex index, std::uint64_t size) ABSL_LOCKS_EXCLUDED(mutex_);
  // InvalidArgument for an index that was never sent.
  absl::Status Acknowledged(LogIndex index) ABSL_LOCKS_EXCLUDED(mutex_);
  // Where the replica's log ends when the session begins: it may acknowledge up to there without
  // being sent anything.
  void Start(LogIndex index) ABSL_LOCKS_EXCLUDED(mutex_);
  void Close() ABSL_LOCKS_EXCLUDED(mutex_);
  bool closed() const ABSL_LOCKS_EXCLUDED(mutex_);
  std::uint64_t in_flight_bytes() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Batch {
    LogIndex index;
    std::uint64_t size;
  };
  mutable absl::Mutex mutex_;
  std::deque<Batch> in_flight_ ABSL_GUARDED_BY(mutex_);
  std::uint64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  LogIndex sent_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

// One thread calls Run; it starts another one for the acknowledgements and joins it.
class FollowSession {
 public:
  struct Callbacks {
    // After the Hello was found right. An error refuses the replica.
    std::function<absl::Status(const v1::Hello&)> joined;
    // From the session's other thread.
    std::function<void(LogIndex synced, LogIndex applied)> acknowledged;
  };
  // Owns nothing; all must outlive it. `stopping` ends the session when it becomes true.
  FollowSession(const PrimaryIdentity& identity, const ChangeLog* log, FollowServerStream* stream,
                const std::atomic<bool>* stopping, Callbacks callbacks);

  // Serves the replica until it goes, the primary stops, or something is wrong; the status is for
  // the replica.
  absl::Status Run();

 private:
  struct Outgoing;

  absl::Status CheckHello(const v1::Hello& hello) const;
  bool SendHello();
  // Sends a Rewind or a LogBase when it must; returns the index to send from.
  absl::StatusOr<LogIndex> SendStart(const v1::Hello& hello);
  absl::StatusOr<LogIndex> SendRewind(const CommonPoint& common, const v1::Hello& hello);
  absl::StatusOr<LogIndex> SendBase(const v1::Hello& hello);
  absl::Status SendLog(LogIndex next);
  // Puts entries from `next` on into messages, and sends those that are full. False at the end of the log.
  absl::StatusOr<bool> SendEntries(LogReader& reader, Outgoing& out, LogIndex* next);
  absl::Status SendRecord(LogReader& reader, const LogEntry& entry, Outgoing& out);
  // False when the replica has gone; so with Flush and KeepAlive.
  bool SendHeartbeat();
  bool Flush(Outgoing& out);
  // Sends a heartbeat when it is time for one.
  bool KeepAlive(Outgoing& out);
  bool Ended() const;
  void ReadAcknowledgements();

  const PrimaryIdentity& identity_;
  const ChangeLog* const log_;
  FollowServerStream* const stream_;
  const std::atomic<bool>* const stopping_;
  const Callbacks callbacks_;
  SendWindow window_;
  absl::Time heartbeat_due_ = absl::InfinitePast();
  std::string name_;  // of the replica, for messages
  // This log as our Hello told it: both sides find the same common point.
  LogEnds ends_;
  TermHistory terms_;
};

}  // namespace echofs
