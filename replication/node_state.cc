#include "replication/node_state.h"

#include <errno.h>
#include <fmt/format.h>
#include <string.h>
#include <sys/random.h>

#include <array>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "replication/bytes.h"
#include "replication/failpoint.h"
#include "replication/limits.h"
#include "replication/status_macros.h"

namespace echofs {
namespace {

std::string StatePath(const std::string& data_directory) { return data_directory + "/node.json"; }

absl::Status Damaged(const std::string& path, const std::string& what) {
  return absl::DataLossError(
      fmt::format("{}: {}. Restore this file from a backup, or move the whole data directory away: "
                  "the node then joins anew and copies every database",
                  path, what));
}

// The member's text, or nothing when it is missing or no text.
absl::StatusOr<std::string> TextMember(const nlohmann::json& json, const char* name,
                                       const std::string& path) {
  const auto member = json.find(name);
  if (member == json.end() || !member->is_string()) {
    return Damaged(path, fmt::format("\"{}\" is missing", name));
  }
  return member->get<std::string>();
}

absl::StatusOr<std::string> ReadSmallFile(Storage& storage, const std::string& path) {
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<File> file,
                          storage.Open(path, OpenOptions{.read_only = true}));
  std::vector<std::uint8_t> bytes(kNodeStateSizeMax + 1);
  ECHOFS_ASSIGN_OR_RETURN(const std::size_t size, file->ReadAt(0, bytes));
  if (size > kNodeStateSizeMax) return Damaged(path, "the file is far too large");
  return std::string(AsText(ByteView(bytes.data(), size)));
}

}  // namespace

absl::StatusOr<NodeState> LoadNodeState(Storage& storage, const std::string& data_directory) {
  const std::string path = StatePath(data_directory);
  ECHOFS_ASSIGN_OR_RETURN(const bool exists, storage.Exists(path));
  if (!exists) return absl::NotFoundError(path + " does not exist");
  ECHOFS_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(storage, path));

  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return Damaged(path, "this is no JSON object");
  const auto version = json.find("format_version");
  if (version == json.end() || !version->is_number_integer()) {
    return Damaged(path, "\"format_version\" is missing");
  }
  if (version->get<std::int64_t>() > kNodeStateFormatVersion) {
    return absl::FailedPreconditionError(fmt::format(
        "{}: format version {} was written by a newer echofs; this one knows {}. Start this node "
        "with the newer echofs",
        path, version->get<std::int64_t>(), kNodeStateFormatVersion));
  }
  NodeState state;
  ECHOFS_ASSIGN_OR_RETURN(state.cluster_id, TextMember(json, "cluster_id", path));
  ECHOFS_ASSIGN_OR_RETURN(state.node_id, TextMember(json, "node_id", path));
  ECHOFS_ASSIGN_OR_RETURN(state.last_role, TextMember(json, "last_role", path));
  ECHOFS_ASSIGN_OR_RETURN(state.boot_id, TextMember(json, "boot_id", path));
  return state;
}

absl::Status SaveNodeState(Storage& storage, const std::string& data_directory,
                           const NodeState& state) {
  const nlohmann::json json = {{"format_version", kNodeStateFormatVersion},
                               {"cluster_id", state.cluster_id},
                               {"node_id", state.node_id},
                               {"last_role", state.last_role},
                               {"boot_id", state.boot_id}};
  const std::string text =
      json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  const std::string path = StatePath(data_directory);
  const std::string temporary = path + ".new";
  Failpoint("state.write.before");
  ECHOFS_RETURN_IF_ERROR(storage.MakeDirectories(data_directory));
  {
    ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<File> file,
                            storage.Open(temporary, OpenOptions{.create = true, .truncate = true}));
    ECHOFS_RETURN_IF_ERROR(file->WriteAt(0, AsBytes(text)));
    ECHOFS_RETURN_IF_ERROR(file->Sync());
  }
  Failpoint("state.rename.before");
  ECHOFS_RETURN_IF_ERROR(storage.Rename(temporary, path));
  Failpoint("state.rename.after");
  return storage.SyncDirectory(data_directory);
}

absl::StatusOr<std::string> NewClusterId() {
  std::array<std::uint8_t, 16> bits{};
  if (getrandom(bits.data(), bits.size(), 0) != static_cast<ssize_t>(bits.size())) {
    return absl::InternalError(fmt::format("getrandom: {}", strerror(errno)));
  }
  std::string id;
  for (const std::uint8_t byte : bits) id += fmt::format("{:02x}", byte);
  return id;
}

std::string CurrentBootId() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id;
}

}  // namespace echofs
