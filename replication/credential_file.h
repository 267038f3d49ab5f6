// Small files that others must not read, or whose content is to be trusted: keys, tokens, certificates.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace echofs {

// Tells one content of a file from another without reading it.
struct FileStamp {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t size = 0;
  std::int64_t mtime_ns = 0;
  std::int64_t ctime_ns = 0;  // a change of the mode counts too

  friend bool operator==(const FileStamp&, const FileStamp&) = default;
};

// Follows symbolic links, for that is how secrets are replaced in one step. Nothing when there is no such file.
std::optional<FileStamp> StampOf(const std::string& path);

// The whole content, at most kCredentialFileSizeMax bytes. `secret`: FailedPrecondition when users other than its owner and
// group can read it, or anybody but its owner write to it. Errors name the file and say what to do.
absl::StatusOr<std::string> ReadCredentialFile(const std::string& path, bool secret);

}  // namespace echofs
