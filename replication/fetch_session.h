// The source's side of a first copy: reads a database page run by page run, while transactions go
// on.
#pragma once

#include <atomic>
#include <string>

#include "absl/status/status.h"
#include "replication/apply_target.h"
#include "replication/change_log.h"
#include "replication/page_set.h"
#include "replication/transport.h"

namespace echofs {

// Sends `database` to `stream`: Begin, page runs, End. Only `pages`, as far as they are there, unless that is
// empty. Each run is one short step that holds
// nothing afterwards (ApplyTarget::ReadPages), so writers are never kept waiting. NotFound when
// there is no such database, Aborted when it was dropped or its page size changed on the way,
// Unavailable when transactions were in the way for kCopyUnavailableMax. `stopping` ends it when it
// becomes true.
absl::Status ServeFetch(const ChangeLog& log, ApplyTarget& target, const std::string& database,
                        const PageSet& pages, const std::atomic<bool>& stopping,
                        FetchServerStream& stream);

}  // namespace echofs
