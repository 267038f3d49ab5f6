// What is shown of one entry of the log, by `echofs log` and by /events.
#pragma once

#include <atomic>

#include "absl/status/statusor.h"
#include "cmd/admin_source.h"
#include "replication/change_log.h"

namespace echofs::cmd {

// Of the change set or drop that `reader` returned last. Reads its payload, to count the pages; Cancelled when
// `cancel`, if it is given, becomes true meanwhile. Errors are those of LogReader.
absl::StatusOr<ChangeSetSummary> Summarize(const LogEntry& entry, LogReader& reader,
                                           const std::atomic<bool>* cancel = nullptr);

}  // namespace echofs::cmd
