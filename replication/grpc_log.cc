#include "replication/grpc_log.h"

#include <fmt/format.h>
#include <grpc/support/log.h>
#include <spdlog/spdlog.h>

#include <string>

#include "replication/limited_log.h"

namespace echofs {
namespace {

void Log(gpr_log_func_args* message) {
  static auto* const log = new LimitedLog;
  if (message->severity != GPR_LOG_SEVERITY_ERROR) {
    spdlog::debug("gRPC: {}", message->message);
    return;
  }
  log->Warn(fmt::format("{}:{}", message->file, message->line),
            fmt::format("gRPC: {}", message->message));
}

}  // namespace

void RouteGrpcLog() { gpr_set_log_function(Log); }

}  // namespace echofs
