#include "replication/apply_entry.h"

#include <fmt/format.h>

namespace echofs {
namespace {

using Kind = EntryOutcome::Kind;

// Nothing when the entry is the next one for the files.
std::string WhyNotNext(const LocalPosition& position, const LogEntry& entry) {
  if (!position.exists) {
    // An entry that starts from nothing is the database's first one, or the first after a drop.
    if (entry.digest_before == 0) return "";
    return fmt::format("there is no local copy before TXID {}", entry.txid.value);
  }
  if (entry.txid != position.txid.Next()) {
    return fmt::format("the local copy is at TXID {}, the next entry has {}", position.txid.value,
                       entry.txid.value);
  }
  if (entry.kind == EntryKind::kChangeSet && entry.digest_before != position.digest) {
    return fmt::format("the local copy at TXID {} has digest {:016x}, the history {:016x}",
                       position.txid.value, position.digest, entry.digest_before);
  }
  return "";
}

}  // namespace

EntryOutcome ApplyEntry(ApplyTarget& target, const LocalPosition& position, const LogEntry& entry,
                        ByteSource& payload) {
  if (entry.txid <= position.txid) {
    const bool differs =
        position.exists && entry.txid == position.txid && entry.digest_after != position.digest;
    if (!differs) return {Kind::kSkipped};
    return {Kind::kGap, 0,
            fmt::format("the local copy at TXID {} has digest {:016x}, the history {:016x}",
                        position.txid.value, position.digest, entry.digest_after)};
  }
  if (!position.exists && entry.kind == EntryKind::kDrop) return {Kind::kApplied};
  if (std::string why = WhyNotNext(position, entry); !why.empty()) return {Kind::kGap, 0, why};

  const absl::StatusOr<ApplyOutcome> outcome = target.Apply(entry, payload);
  if (outcome.ok()) {
    switch (outcome->kind) {
      case ApplyOutcome::Kind::kApplied:
        return {Kind::kApplied};
      case ApplyOutcome::Kind::kBlocked:
        return {Kind::kBlocked, outcome->blocked_by_pid};
      case ApplyOutcome::Kind::kLater:
        return {Kind::kLater, 0, "", outcome->retry_after};
    }
  }
  const bool damaged = absl::IsDataLoss(outcome.status());
  return {damaged ? Kind::kDamaged : Kind::kFailed, 0, std::string(outcome.status().message())};
}

}  // namespace echofs
