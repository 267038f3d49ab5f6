// What a running node does for the commands that take whole databases in and out, by its parts.
#pragma once

#include <string>
#include <utility>

#include "cmd/tools_source.h"
#include "replication/apply_target.h"

namespace echofs::cmd {

// Thread-safe. Owns nothing; the parts outlive it.
class DaemonTools final : public ToolsSource {
 public:
  DaemonTools(Node* node, const ChangeLog* log, ApplyTarget* databases, std::string mount_point)
      : node_(node), log_(log), databases_(databases), mount_point_(std::move(mount_point)) {}

  std::string MountPoint() override { return mount_point_; }
  absl::Status Export(const std::string& database, DatabaseSink& sink) override;
  absl::Status ExportChangeSet(const std::string& database, Txid txid,
                               const std::function<bool(ByteView)>& write) override;
  absl::Status CompareNodes(const std::string& database,
                            const std::function<bool(const NodeComparison&)>& visit) override {
    return node_->CompareNodes(database, visit);
  }
  absl::Status Refetch(const std::string& database) override { return node_->Refetch(database); }
  absl::StatusOr<DatabasePosition> ForwardImport(const std::string& database, std::uint64_t size,
                                                 bool replace, ByteSource& file,
                                                 const std::function<bool()>& cancelled) override {
    return node_->ForwardImport(database, size, replace, file, cancelled);
  }

 private:
  Node* const node_;
  const ChangeLog* const log_;
  ApplyTarget* const databases_;
  const std::string mount_point_;
};

}  // namespace echofs::cmd
