// The cluster's token: a secret that whoever calls a node or the lease server has to know.
//
// The file has a token a line. The first one is sent, all are accepted: so the token is changed without a gap by adding
// the new one as second line on all machines, then putting it first everywhere, then removing the old one.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "replication/credential_file.h"

namespace echofs {

// Thread-safe. Reads the file again when it has changed, of which it looks once a second at most; a file that has become
// unusable is warned of, and the tokens stay as they were.
class TokenFile {
 public:
  // FailedPrecondition names the file and says what to do.
  static absl::StatusOr<std::unique_ptr<TokenFile>> Open(const std::string& path);

  std::string ToSend() ABSL_LOCKS_EXCLUDED(mutex_);
  // Takes a time that tells nothing of the token but its length.
  bool Accepts(std::string_view token) ABSL_LOCKS_EXCLUDED(mutex_);
  // Why the file as it is now is not used; empty when it is.
  std::string last_error() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  explicit TokenFile(std::string path) : path_(std::move(path)) {}
  absl::Status Read() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReadIfChanged() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string path_;
  absl::Mutex mutex_;
  std::vector<std::string> tokens_ ABSL_GUARDED_BY(mutex_);  // never empty after Open
  std::string last_error_ ABSL_GUARDED_BY(mutex_);
  std::optional<FileStamp> stamp_ ABSL_GUARDED_BY(mutex_);
  absl::Time next_look_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace echofs
