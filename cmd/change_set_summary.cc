#include "cmd/change_set_summary.h"

#include <memory>
#include <optional>

#include "replication/ltx.h"
#include "replication/status_macros.h"

namespace echofs::cmd {
namespace {

absl::StatusOr<std::uint32_t> CountPages(ByteSource& payload, const std::atomic<bool>* cancel) {
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<LtxDecoder> decoder, LtxDecoder::Start(&payload));
  for (std::uint32_t pages = 0;; ++pages) {
    if (cancel != nullptr && *cancel) return absl::CancelledError("this node is stopping");
    ECHOFS_ASSIGN_OR_RETURN(const std::optional<LtxDecoder::Page> page, decoder->Next());
    if (!page) return pages;
  }
}

}  // namespace

absl::StatusOr<ChangeSetSummary> Summarize(const LogEntry& entry, LogReader& reader,
                                           const std::atomic<bool>* cancel) {
  ChangeSetSummary summary;
  summary.index = entry.index;
  summary.term = entry.term;
  summary.txid = entry.txid;
  summary.kind = entry.kind == EntryKind::kDrop ? "drop" : "change";
  summary.timestamp_ms = entry.timestamp_ms;
  summary.bytes = entry.payload_size;
  summary.page_count = entry.page_count;
  summary.digest = entry.digest_after;
  if (entry.kind == EntryKind::kChangeSet) {
    ECHOFS_ASSIGN_OR_RETURN(summary.pages, CountPages(*reader.Payload(), cancel));
  }
  return summary;
}

}  // namespace echofs::cmd
