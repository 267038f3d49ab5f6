// A file that appears at its place in one step, whole and synced: until then it is PATH.tmp.
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "replication/bytes.h"
#include "replication/storage.h"

namespace echofs::cmd {

// One thread. Whoever is killed leaves PATH.tmp, which the next one of this name writes over.
class OutputFile {
 public:
  // AlreadyExists when there is a file `path`, unless `force`, and when another process writes to PATH.tmp.
  static absl::StatusOr<std::unique_ptr<OutputFile>> Create(const std::string& path, bool force);
  // Removes PATH.tmp unless Finish has succeeded.
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  File& file() { return *file_; }
  absl::Status Finish();

 private:
  OutputFile(std::string path, bool force) : path_(std::move(path)), force_(force) {}

  const std::string path_;
  const bool force_;
  std::unique_ptr<File> file_;
  bool finished_ = false;
};

// The directory that a path is in.
std::string DirectoryOf(const std::string& path);

}  // namespace echofs::cmd
