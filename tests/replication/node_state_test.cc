#include "replication/node_state.h"

#include <fstream>
#include <string>

#include "tests/catch.h"
#include "tests/replication/temp_directory.h"

namespace echofs {
namespace {

absl::Status LoadText(const std::string& text) {
  TempDirectory directory;
  std::ofstream(directory / "node.json") << text;
  return LoadNodeState(*PosixStorage(), directory.path()).status();
}

TEST_CASE("node.json comes back as it was stored") {
  TempDirectory directory;
  const std::string data = directory / "data";
  CHECK(absl::IsNotFound(LoadNodeState(*PosixStorage(), data).status()));
  const NodeState state = {"0123456789abcdef0123456789abcdef", "a \"node\"", "primary", "boot"};
  REQUIRE(SaveNodeState(*PosixStorage(), data, state).ok());
  const absl::StatusOr<NodeState> loaded = LoadNodeState(*PosixStorage(), data);
  REQUIRE(loaded.ok());
  CHECK(*loaded == state);
  CHECK(*PosixStorage()->List(data) == std::vector<std::string>{"node.json"});
}

TEST_CASE("a node.json of a newer version is refused and says so") {
  const absl::Status status = LoadText(
      R"({"format_version": 2, "cluster_id": "", "node_id": "", "last_role": "", "boot_id": ""})");
  CHECK(absl::IsFailedPrecondition(status));
  CHECK(std::string(status.message()).find("newer echofs") != std::string::npos);
  CHECK(std::string(status.message()).find("node.json") != std::string::npos);
}

TEST_CASE("a node.json that makes no sense is refused") {
  const char* const good =
      R"({"format_version": 1, "cluster_id": "", "node_id": "", "last_role": "", "boot_id": ""})";
  CHECK(LoadText(good).ok());
  CHECK(absl::IsDataLoss(LoadText("")));
  CHECK(absl::IsDataLoss(LoadText("[]")));
  CHECK(absl::IsDataLoss(LoadText("{\"format_version\": 1")));
  CHECK(absl::IsDataLoss(LoadText("{\"format_version\": \"1\"}")));
  CHECK(absl::IsDataLoss(LoadText("{\"format_version\": 1}")));
  CHECK(absl::IsDataLoss(LoadText(
      R"({"format_version": 1, "cluster_id": 3, "node_id": "", "last_role": "", "boot_id": ""})")));
  CHECK(absl::IsDataLoss(LoadText(good + std::string(100'000, ' '))));
}

TEST_CASE("cluster ids are 128 random bits in hex") {
  const std::string a = *NewClusterId();
  CHECK(a.size() == 32);
  CHECK(a.find_first_not_of("0123456789abcdef") == std::string::npos);
  CHECK(a != *NewClusterId());
}

}  // namespace
}  // namespace echofs
