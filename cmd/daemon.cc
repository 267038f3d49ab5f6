#include "cmd/daemon.h"

#include <spdlog/spdlog.h>

namespace echofs::cmd {

int RunDaemon(const DaemonContext& context) {
  spdlog::error("this build has no daemon for {}", context.mount_point);
  return 1;
}

}  // namespace echofs::cmd
