// The commands' side of the Admin service.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cmd/admin_source.h"

namespace echofs::cmd {

// One thread at a time. All errors are for people.
class AdminClient {
 public:
  // To the node whose data directory this is. Unavailable when none is running there.
  static absl::StatusOr<std::unique_ptr<AdminClient>> Connect(const std::string& data_dir);
  ~AdminClient();
  AdminClient(const AdminClient&) = delete;
  AdminClient& operator=(const AdminClient&) = delete;

  absl::StatusOr<NodeStatus> Status();
  absl::StatusOr<std::vector<DatabaseInfo>> Databases();
  absl::StatusOr<std::vector<std::string>> LocalFiles();
  absl::Status ChangeSets(const std::string& database, const ChangeSetRange& range,
                          const std::function<void(const ChangeSetSummary&)>& visit);
  // Wait for the end of the change. What they do is described at AdminSource.
  absl::StatusOr<PrimaryInfo> Handoff(const std::string& to);
  absl::StatusOr<PrimaryInfo> Promote(bool force);
  absl::StatusOr<std::vector<OrphanInfo>> Orphans();
  // Each entry of a set in order, its LTX file in pieces: `begin` is true for its first one.
  struct OrphanPiece {
    std::string database;
    Txid txid;
    bool drop = false;
    bool begin = false;
    std::string_view data;  // valid during the call
  };
  absl::Status ExportOrphans(const std::string& id,
                             const std::function<absl::Status(const OrphanPiece&)>& visit);
  // One set, or all when `id` is empty. Returns how many.
  absl::StatusOr<std::uint64_t> DiscardOrphans(const std::string& id);

 private:
  struct State;
  explicit AdminClient(std::unique_ptr<State> state);
  const std::unique_ptr<State> state_;
};

}  // namespace echofs::cmd
