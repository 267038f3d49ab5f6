// Log records as they come off the wire, in pieces of any size, into the replica's log: byte for
// byte (L3), and only after header and payload checksum were found right (L2).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "replication/bytes.h"
#include "replication/change_log.h"
#include "replication/log_entry.h"

namespace echofs {

// One thread. After an error the object must not be used further: what was begun is taken back at
// its destruction, and the stream has to start again after the log's last entry.
class RecordReceiver {
 public:
  // The payload of an entry if it is small enough to be kept (kQueuedPayloadSizeMax), else nothing.
  using Payload = std::optional<std::vector<std::uint8_t>>;
  // `on_entry` is called for each entry after it was committed to the log (not synced). Owns
  // neither log nor what the callback refers to. Entries of a term above `term_max` are refused
  // (R1).
  RecordReceiver(ChangeLog* log, Term term_max,
                 std::function<void(const LogEntry&, Payload)> on_entry);
  ~RecordReceiver();

  // Takes the next piece of the stream. DataLoss for damaged bytes; errors of the log as they are.
  absl::Status Receive(ByteView bytes);
  // True between two records.
  bool at_boundary() const { return part_ == Part::kHeader && header_.empty(); }

 private:
  enum class Part { kHeader, kPayload, kTrailer };

  // Each takes what it needs from the front of `bytes`.
  absl::Status ReceiveHeader(ByteView& bytes);
  absl::Status ReceivePayload(ByteView& bytes);
  absl::Status ReceiveTrailer(ByteView& bytes);
  absl::Status BeginEntry();
  absl::Status CommitEntry();

  ChangeLog* const log_;
  const Term term_max_;
  const std::function<void(const LogEntry&, Payload)> on_entry_;

  Part part_ = Part::kHeader;
  std::vector<std::uint8_t> header_;  // header and name as far as they have come
  std::vector<std::uint8_t> trailer_;
  LogEntry entry_;
  std::uint64_t payload_left_ = 0;
  std::unique_ptr<EntryWriter> writer_;
  std::unique_ptr<PayloadChecksum> checksum_;
  Payload kept_;
};

}  // namespace echofs
