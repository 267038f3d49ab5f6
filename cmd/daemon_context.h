// What the guardian hands to the daemon process.
#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "cmd/config.h"

namespace echofs::cmd {

// Lives for the whole run of the daemon. ReportReady and Unmount may be called from any thread, but
// only one at a time.
struct DaemonContext {
  int fuse_fd = -1;         // /dev/fuse, connected to the mount; owned by the daemon; close-on-exec
  std::string mount_point;  // real path
  Config config;
  int link_fd = -1;  // socket to the guardian; close-on-exec

  // Tells the guardian that the mount can be used: it starts the command given after "--".
  void ReportReady() const;

  // Asks the guardian to unmount, and waits for it; see Unmount in fuse_mount.h. Requests must be
  // served meanwhile, and the daemon must have closed its own files in the mount before.
  // Unavailable when the guardian is dead: then its helper has removed the mount.
  absl::Status Unmount() const;
};

// Runs the daemon to its end; returns the exit code.
//
// It is called on the main thread of the daemon's process, with no other thread there yet. This
// thread must never touch the mount, not by a path nor by a notification to the kernel, and must
// not end before the process does: the guardian's helper watches it. SIGTERM, SIGINT and SIGHUP are
// blocked (wait for them with sigwait or a signalfd, block them in every thread); SIGTERM is also
// what comes when the guardian dies.
using DaemonFunction = std::function<int(const DaemonContext&)>;

}  // namespace echofs::cmd
