// Makes and removes the FUSE mount of a node (design section 1). As root with mount(2) and
// umount2(2), as an ordinary user through fusermount3.
//
// All functions may fork short-lived children and wait for them: for single-threaded processes (the
// guardian and its helper) only. None of them touches a file of the mount, so none can hang in it.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cmd/unique_fd.h"

namespace echofs::cmd {

// Names one mount for as long as it exists. Mount ids and connection numbers are reused by the
// kernel, so everything is looked up in the mount table at the moment of use.
struct MountRef {
  int id = 0;               // of the kernel
  std::string mount_point;  // real path
};

struct FuseMount {
  MountRef ref;
  UniqueFd fd;  // /dev/fuse, close-on-exec
};

// Makes sure that `directory` (absolute) can be mounted on: it exists, is a directory and is empty.
// A dead echofs mount that a killed node left there is removed first; one that is alive is
// AlreadyExists. Returns the real path.
absl::StatusOr<std::string> PrepareMountDirectory(const std::string& directory);

// Mounts on `mount_point`, a result of PrepareMountDirectory.
absl::StatusOr<FuseMount> MountFuse(const std::string& mount_point, bool allow_other);

// The orderly end: unmounts, or, when applications are still inside, detaches the mount with a
// warning in the log that names them. The daemon must go on serving until this returns. OK when the
// mount is gone already.
absl::Status Unmount(const MountRef& ref);

// The end by force: aborts the connection, which ends every request with an error, then detaches
// the mount. Any process may call it, any number of times; does nothing when the mount is gone.
void AbortAndDetach(const MountRef& ref);

}  // namespace echofs::cmd
