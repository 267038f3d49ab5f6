// The helper process (design section 1): sees that the daemon died even when a thread of it hangs
// in D state, where waitpid sees nothing, and sees that the guardian died.
#pragma once

#include <sys/types.h>

#include "absl/status/status.h"
#include "cmd/fuse_mount.h"

namespace echofs::cmd {

// What the guardian writes into the helper's socket when the mount is gone and the helper has
// nothing to do.
inline constexpr char kHelperDismissed = 'D';

// Forks the helper. To be called by the daemon's main thread before there is another one; the
// helper watches that thread. `watch_fd` is one end of a socket whose other end only the guardian
// holds: its closing is the guardian's death. The helper holds `alive_fd` open as long as it lives.
// Both stay the caller's.
//
// When the daemon or the guardian dies, the helper calls AbortAndDetach(mount) and ends.
absl::Status StartMountHelper(const MountRef& mount, int watch_fd, int alive_fd);

}  // namespace echofs::cmd
