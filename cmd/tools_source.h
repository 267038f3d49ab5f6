// What a running node does for the commands that take whole databases in and out: `export`, `import`, `verify`,
// `log --export`. The daemon implements ToolsSource, the tools client has the same at the other end.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "replication/bytes.h"
#include "replication/change_log.h"
#include "replication/database_export.h"
#include "replication/ids.h"
#include "replication/node.h"

namespace echofs::cmd {

// Thread-safe; called on threads of the admin server. All block.
class ToolsSource {
 public:
  virtual ~ToolsSource() = default;

  virtual std::string MountPoint() = 0;
  // See replication/database_export.h.
  virtual absl::Status Export(const std::string& database, DatabaseSink& sink) = 0;
  // Gives the LTX file of one change set to `write` in pieces, which are valid during the call, until that returns
  // false. NotFound when the log does not hold it.
  virtual absl::Status ExportChangeSet(const std::string& database, Txid txid,
                                       const std::function<bool(ByteView)>& write) = 0;
  // The rest as at Node.
  virtual absl::Status CompareNodes(const std::string& database,
                                    const std::function<bool(const NodeComparison&)>& visit) = 0;
  virtual absl::Status Refetch(const std::string& database) = 0;
  virtual absl::StatusOr<DatabasePosition> ForwardImport(
      const std::string& database, std::uint64_t size, bool replace, ByteSource& file,
      const std::function<bool()>& cancelled) = 0;
};

}  // namespace echofs::cmd
