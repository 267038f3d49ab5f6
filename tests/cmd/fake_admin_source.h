// A node that never changes, for the tests of the admin service and of what the commands print.
#pragma once

#include <string>
#include <vector>

#include "cmd/admin_source.h"

namespace echofs::cmd::test {

class FakeAdminSource : public AdminSource {
 public:
  NodeStatus Status() override;
  std::vector<DatabaseInfo> Databases() override;
  std::vector<std::string> LocalFiles() override;
  absl::Status ChangeSets(const std::string& database,
                          const std::function<bool(const ChangeSetSummary&)>& visit) override;
  OrphanStore* Orphans() override { return orphans; }

  OrphanStore* orphans = nullptr;  // not owned; for tests that ask for them
};

}  // namespace echofs::cmd::test
