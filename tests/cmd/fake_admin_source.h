// A node that changes only as a test says, for the tests of the admin service and of the commands.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "cmd/admin_source.h"

namespace echofs::cmd::test {

class FakeAdminSource : public AdminSource {
 public:
  NodeStatus Status() override;
  std::vector<DatabaseInfo> Databases() override;
  std::vector<std::string> LocalFiles() override;
  absl::Status ChangeSets(const std::string& database, const ChangeSetRange& range,
                          const std::function<bool(const ChangeSetSummary&)>& visit) override;
  // To b, or to whom is named, in term 4. Fails with FailedPrecondition for "c".
  absl::StatusOr<PrimaryInfo> Handoff(const std::string& to) override;
  // In term 4, with force in term 5. Fails with Unavailable when there is no lease service.
  absl::StatusOr<PrimaryInfo> Promote(bool force) override;

  // Set while no call is under way. A candidate knows no primary.
  std::string role = "primary";
  std::atomic<bool> ready = true;
  std::atomic<bool> lease_service = true;
  OrphanStore* Orphans() override { return orphans; }

  OrphanStore* orphans = nullptr;  // not owned; for tests that ask for them
};

}  // namespace echofs::cmd::test
