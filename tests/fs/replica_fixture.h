// A primary and a replica of it in one temporary directory.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "fs/replica_database.h"
#include "tests/fs/plain_mount.h"
#include "tests/fs/primary_database.h"
#include "tests/fs/sqlite_process.h"
#include "tests/replication/temp_directory.h"

namespace echofs::fs {

class ReplicaFixture {
 public:
  // `setup` as for PrimaryDatabase.
  explicit ReplicaFixture(const std::string& setup, ReplicaDatabaseOptions options = {});

  // Opens the replica (again) at its position, or as empty.
  void OpenReplica(const DatabasePosition& position = {});
  // Applies, when it is not the readers' turn any more, and lets readers in; checks that it was applied.
  void Apply(const Change& change);
  // One attempt, as one of several in a row.
  absl::StatusOr<ApplyOutcome> Try(const Change& change);
  void ApplySql(const std::string& sql) { Apply(primary->Run(sql)); }
  // Ends the series of changes: the replica reads as the primary's image: pages, digest, and what SQLite says of it.
  void CheckSame();
  // Writes the primary's image to a file, for InstallCopy.
  std::string WriteImage();

  TempDirectory directory;
  PlainPageCache cache;
  ReplicaDatabaseOptions options;
  std::unique_ptr<PrimaryDatabase> primary;
  std::unique_ptr<ReplicaDatabase> replica;
  const std::string path;  // of the replica's database
};

}  // namespace echofs::fs
