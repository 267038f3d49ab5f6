// The data directory of a node: one user at a time, and where things are in it.
//
//     lock           locked by the running node
//     node.json      what the node remembers (replication/node_state.h)
//     files/         the databases, as they are seen in the mount, with their owners and modes
//     log/           the change log (replication/change_log.h)
//     applied        where a replica's databases stand (fs/applied_positions.h)
//     orphans/       change sets of its own that the cluster lacks (replication/orphan_store.h)
//     tmp/           copies in the making; emptied at a start
//     echofs.sock    for the commands
//
// log/, orphans/ and tmp/ are the owner's alone, and so is the directory itself when echofs has made it.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "cmd/unique_fd.h"

namespace echofs::cmd {

// Makes the directory when it is missing, and locks it for the life of the result. FailedPrecondition when
// another echofs uses it, and goes on using it for some seconds.
absl::StatusOr<UniqueFd> LockDataDirectory(const std::string& path);

class DataDirectory {
 public:
  // As LockDataDirectory.
  static absl::StatusOr<DataDirectory> Open(const std::string& path);

  // Without symbolic links in it.
  const std::string& path() const { return path_; }
  std::string files() const { return path_ + "/files"; }
  std::string log() const { return path_ + "/log"; }
  std::string applied() const { return path_ + "/applied"; }
  std::string temporary() const { return path_ + "/tmp"; }
  std::string orphans() const { return path_ + "/orphans"; }

 private:
  DataDirectory(std::string path, UniqueFd lock) : path_(std::move(path)), lock_(std::move(lock)) {}

  std::string path_;
  UniqueFd lock_;
};

}  // namespace echofs::cmd
