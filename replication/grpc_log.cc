#include "replication/grpc_log.h"

#include <fmt/format.h>
#include <grpc/support/log.h>
#include <spdlog/spdlog.h>

#include <string>
#include <string_view>

#include "replication/limited_log.h"

namespace echofs {
namespace {

// How the message about a failed handshake begins; OpenSSL's reason follows.
constexpr std::string_view kHandshake = "Handshake failed with fatal error ";

void Log(gpr_log_func_args* message) {
  static auto* const log = new LimitedLog;
  if (message->severity != GPR_LOG_SEVERITY_ERROR) {
    spdlog::debug("gRPC: {}", message->message);
    return;
  }
  const std::string_view text = message->message;
  if (text.starts_with(kHandshake)) {
    log->Warn(
        std::string(text),
        fmt::format("TLS: a connection could not be secured: {} It is with a stranger, or with "
                    "a node without TLS or whose certificate is not from the same authority, "
                    "is for another name or address, or is not valid now",
                    text.substr(kHandshake.size())));
    return;
  }
  log->Warn(std::string(text), fmt::format("gRPC: {}", text));
}

}  // namespace

void RouteGrpcLog() { gpr_set_log_function(Log); }

}  // namespace echofs
