// The orphans of a node on the commands' socket: the server's side of their calls.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "replication/orphan_store.h"

namespace echofs::v1 {
class OrphanPiece;
class OrphanSetInfo;
}  // namespace echofs::v1

namespace echofs::cmd {

// Each sends its answers by `write`, which returns false when the client has gone. Any thread.
absl::Status SendOrphanList(OrphanStore& store,
                            const std::function<bool(const v1::OrphanSetInfo&)>& write);
absl::Status SendOrphans(OrphanStore& store, const std::string& id,
                         const std::function<bool(const v1::OrphanPiece&)>& write);
// One set, or all when `all`. Returns how many.
absl::StatusOr<std::uint64_t> DiscardOrphans(OrphanStore& store, const std::string& id, bool all);

}  // namespace echofs::cmd
