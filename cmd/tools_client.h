// The commands' side of the DatabaseTools service.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cmd/tools_source.h"

namespace echofs::cmd {

// One thread at a time. All errors are for people; the calls are described at ToolsSource.
class ToolsClient {
 public:
  // To the node whose data directory this is. Unavailable when none is running there.
  static absl::StatusOr<std::unique_ptr<ToolsClient>> Connect(const std::string& data_dir);
  ~ToolsClient();
  ToolsClient(const ToolsClient&) = delete;
  ToolsClient& operator=(const ToolsClient&) = delete;

  absl::StatusOr<std::string> MountPoint();
  // Checks what comes: Begin first, End last, pages whole and within the size of SQLite's largest database.
  absl::Status Export(const std::string& database, DatabaseSink& sink);
  absl::Status ExportChangeSet(const std::string& database, Txid txid,
                               const std::function<absl::Status(ByteView)>& write);
  absl::Status CompareNodes(const std::string& database,
                            const std::function<void(const NodeComparison&)>& visit);
  absl::Status Refetch(const std::string& database);
  absl::StatusOr<DatabasePosition> ForwardImport(const std::string& database, std::uint64_t size,
                                                 bool replace, ByteSource& file);

 private:
  struct State;
  explicit ToolsClient(std::unique_ptr<State> state);
  const std::unique_ptr<State> state_;
};

}  // namespace echofs::cmd
