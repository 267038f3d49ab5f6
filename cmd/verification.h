// `echofs verify`: are the databases the same on all nodes, and are this node's what its log says?
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "replication/ids.h"

namespace echofs::cmd {

struct VerifyOptions {
  std::string database;  // empty: all
  bool full = false;     // reads this node's copies
  bool repair = false;   // fetches this node's copies again that are not equal
};

// One database on one node.
struct VerifiedCopy {
  enum class Result {
    kEqual,
    kRepaired,  // equal since it was fetched again
    kDifferent,
    kUnknown,  // it could not be compared
  };
  std::string database;  // empty: the node could not be asked
  std::string node;
  Txid txid;
  std::uint64_t digest = 0;
  Result result = Result::kUnknown;
  std::string detail;  // what was compared, or why it could not be
};

struct Verification {
  std::vector<VerifiedCopy> copies;  // by database; this node first

  bool AllEqual() const;
};

// Talks to the node with this data directory. What is still on its way to another node is waited for, some seconds.
// Errors are for people: the node could not be asked, or there is no such database.
absl::StatusOr<Verification> VerifyNode(const std::string& data_dir, const VerifyOptions& options);

std::string VerificationJson(const Verification& verification);
std::string VerificationText(const Verification& verification);

}  // namespace echofs::cmd
