// Our values <-> messages. What comes from the wire is checked here.
#pragma once

#include "absl/status/statusor.h"
#include "replication/change_log.h"
#include "replication/log_match.h"
#include "replication/page_set.h"

namespace echofs::v1 {
class DatabasePosition;
class FetchDatabaseRequest;
class Hello;
}  // namespace echofs::v1

namespace echofs {

// Where a log begins and ends.
struct LogEnds {
  LogIndex first;  // of the entries that can be read
  LogIndex last;
  Term last_term;
};

void ToMessage(const DatabasePosition& position, v1::DatabasePosition* message);

// InvalidArgument for a name that could leave the data directory, or an impossible page size.
absl::StatusOr<DatabasePosition> FromMessage(const v1::DatabasePosition& message);

// Puts where the log begins and ends, and its terms, into a Hello.
void ToMessage(const LogEnds& ends, const TermHistory& terms, v1::Hello* message);
// The terms of a Hello. InvalidArgument when they are impossible.
absl::StatusOr<TermHistory> TermsFromMessage(const v1::Hello& message);

void ToMessage(const PageSet& pages, v1::FetchDatabaseRequest* message);
// The pages that are asked for. InvalidArgument when they are out of order or too many.
absl::StatusOr<PageSet> PagesFromMessage(const v1::FetchDatabaseRequest& message);

}  // namespace echofs
