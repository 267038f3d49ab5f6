// Mounting as an ordinary user, through the set-user-ID program fusermount3. For single-threaded
// processes: forks and waits for the program.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cmd/unique_fd.h"

namespace echofs::cmd {

// Mounts and returns the descriptor of /dev/fuse, which fusermount3 sends over a unix socket.
absl::StatusOr<UniqueFd> FusermountMount(const std::string& mount_point, bool allow_other,
                                         int max_read_bytes);

absl::Status FusermountUnmount(const std::string& mount_point, bool lazy);

}  // namespace echofs::cmd
