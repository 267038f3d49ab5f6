// The guardian, the outer process of `echofs mount` (design section 1).
//
//     guardian            mounts, forks the daemon, keeps no descriptor of /dev/fuse; runs the
//     command
//       |- daemon         serves the mount; its main thread never touches it
//       |    `- helper    own session; sees the daemon's and the guardian's death
//       |- command        what stands after "--", else what `exec` lists, one at a time
//       `- probe          reads a file of the mount, for the service manager's watchdog (mount_probe.h)
//
// However the daemon ends, and when the guardian ends by force, the mount is gone within a moment
// and no process hangs in it: whoever survives aborts the connection and detaches the mount.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "cmd/config.h"
#include "cmd/daemon_context.h"
#include "cmd/supervisor.h"

namespace echofs::cmd {

struct GuardianOptions {
  Config config;
  // Commands that are run one after the other when the mount is ready, each to its end, before
  // `command`. One that fails ends the node.
  std::vector<std::vector<std::string>> steps;
  std::vector<std::string> command;  // empty: none
  std::chrono::milliseconds command_grace = kCommandGrace;
  // Name of a file in the mount, whose read shows that the daemon answers.
  std::string probe_file = ".lag";
};

// Mounts, runs `run_daemon` in a child process, and returns the exit code of `echofs mount` when
// all is over: that of the command, or of the step that failed, when there was one, else the
// daemon's; 128 + signal for what was killed. To be called while the process has one thread. Says in the log what went wrong.
//
// SIGTERM and SIGINT stop the command or step first (kCommandGrace), then the daemon. SIGHUP goes to the
// command when there is one, else to the daemon; SIGUSR1 and SIGUSR2 to the command.
//
// A service manager that asks for it (service_notify.h) hears READY when the command or the first step is
// started, or would be, and STOPPING; its watchdog is answered while the mount is.
int RunGuardian(const GuardianOptions& options, const DaemonFunction& run_daemon);

}  // namespace echofs::cmd
