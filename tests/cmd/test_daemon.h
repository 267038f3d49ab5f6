// A tiny file system as the daemon of the guardian's tests. Files in the mount:
//
//     hello   reads "hello\n"
//     hang    an open of it is never answered
//
// On each open of "hang" it creates the file `marker`.
#pragma once

#include <string>

#include "cmd/daemon_context.h"

namespace echofs::cmd::test {

struct TestDaemonOptions {
  std::string pid_file;  // gets the daemon's process id when it serves
  std::string marker;
  bool open_own_file = false;  // a thread of the daemon opens "hang" in its own mount
};

// Serves until a signal comes or the mount is aborted, then unmounts. Returns 0, or 1 when
// unmounting failed.
int RunTestDaemon(const DaemonContext& context, const TestDaemonOptions& options);

}  // namespace echofs::cmd::test
