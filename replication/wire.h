// Our values <-> messages. What comes from the wire is checked here.
#pragma once

#include "absl/status/statusor.h"
#include "replication/change_log.h"

namespace echofs::v1 {
class DatabasePosition;
}

namespace echofs {

void ToMessage(const DatabasePosition& position, v1::DatabasePosition* message);

// InvalidArgument for a name that could leave the data directory, or an impossible page size.
absl::StatusOr<DatabasePosition> FromMessage(const v1::DatabasePosition& message);

}  // namespace echofs
