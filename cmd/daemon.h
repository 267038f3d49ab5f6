#pragma once

#include "cmd/daemon_context.h"

namespace echofs::cmd {

// The daemon of a node: opens its data directory, serves the mount, replicates, answers the
// commands. Contract: DaemonFunction.
int RunDaemon(const DaemonContext& context);

}  // namespace echofs::cmd
