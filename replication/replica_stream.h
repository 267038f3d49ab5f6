// One stream from the primary, as the replica lives it: Hello, perhaps a cut of the log or a new base for it
// (log_rewind.h says how), then records into the log and on to the apply queue, and acknowledgements back.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "replication/apply_queue.h"
#include "replication/change_log.h"
#include "replication/log_rewind.h"
#include "replication/orphan_store.h"
#include "replication/record_receiver.h"
#include "replication/transport.h"

namespace echofs::v1 {
class Heartbeat;
class Hello;
class LogBase;
class RecordChunk;
class Rewind;
}  // namespace echofs::v1

namespace echofs {

// One thread calls Run; it starts another one, which syncs the log off the receive path (one sync
// for all that has come meanwhile), acknowledges, and watches over silence. Cancel and Progress
// from any thread.
class ReplicaStream {
 public:
  struct Callbacks {
    // The primary's Hello. An error ends the stream with it.
    std::function<absl::Status(const v1::Hello&)> hello;
    std::function<void(const v1::Heartbeat&)> heartbeat;
  };
  struct Parts {
    ChangeLog* log;
    ApplyQueue* queue;
    ApplyTarget* target;
    OrphanStore* orphans;
  };
  // Owns nothing; all must outlive it.
  ReplicaStream(const Parts& parts, FollowCall* call, Callbacks callbacks);

  // Follows until the stream breaks; never returns OK.
  absl::Status Run(const v1::Hello& hello);
  void Cancel() { call_->Cancel(); }
  // Something was applied.
  void Progress() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  absl::Status Receive();
  absl::Status ReceiveBase(const v1::LogBase& base);
  absl::Status ReceiveChunk(const v1::RecordChunk& chunk);
  absl::Status ResetLog(LogIndex index, Term term);
  absl::Status ReceiveHello(const v1::Hello& hello);
  absl::Status ReceiveRewind(const v1::Rewind& rewind);
  // Where this log and the primary's part, as it was at the Hello.
  CommonPoint Common() const;
  RewindContext Context() const;
  // Reads the next message, under the eye of the silence watch.
  bool Read(v1::FollowResponse* response) ABSL_LOCKS_EXCLUDED(mutex_);
  // The log is what it should be: acknowledge from now on.
  void StartAcknowledging() ABSL_LOCKS_EXCLUDED(mutex_);

  void AcknowledgeLoop() ABSL_LOCKS_EXCLUDED(mutex_);
  bool WaitForWork() ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status SyncAndAcknowledge() ABSL_LOCKS_EXCLUDED(mutex_);

  ChangeLog* const log_;
  ApplyQueue* const queue_;
  ApplyTarget* const target_;
  OrphanStore* const orphans_;
  FollowCall* const call_;
  const Callbacks callbacks_;

  // Of the receiving thread.
  Term primary_term_;
  bool synchronous_ = false;  // commits on the primary wait for us; set before acknowledging begins
  std::string primary_;       // node id
  LogIndex primary_last_;
  TermHistory primary_terms_;
  std::vector<DatabasePosition> catalog_;  // of a LogBase that is not complete yet
  std::unique_ptr<RecordReceiver> receiver_;

  // Of the acknowledging thread.
  LogIndex synced_;
  absl::Time last_sync_ = absl::InfinitePast();  // its begin
  LogIndex acked_synced_;
  LogIndex acked_applied_;
  bool acked_once_ = false;

  absl::Mutex mutex_;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  bool acknowledging_ ABSL_GUARDED_BY(mutex_) = false;
  bool received_ ABSL_GUARDED_BY(mutex_) = false;  // entries that are not synced yet
  bool applied_ ABSL_GUARDED_BY(mutex_) = false;   // progress that is not acknowledged yet
  absl::Time reading_since_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);  // of the acknowledging thread
};

}  // namespace echofs
