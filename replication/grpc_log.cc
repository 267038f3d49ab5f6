#include "replication/grpc_log.h"

#include <fmt/format.h>
#include <grpc/support/log.h>
#include <spdlog/spdlog.h>

#include <array>
#include <string>
#include <string_view>

#include "replication/limited_log.h"

namespace echofs {
namespace {

// How the message about a failed handshake begins; OpenSSL's reason follows.
constexpr std::string_view kHandshake = "Handshake failed with fatal error ";
// With TLS 1.3 a client learns after its handshake that the server does not take its certificate. OpenSSL's error is
// among other messages that say less.
constexpr std::string_view kError = "error:";
constexpr std::string_view kAlert = " alert ";
constexpr std::array<std::string_view, 3> kBesidesErrors = {
    "Corruption detected.", "Decryption error: ", "SSL_write failed with error "};

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
  if (text.starts_with(kError) && text.find(kAlert) != text.npos) {
    log->Warn(std::string(text),
              fmt::format("TLS: the other side has ended a connection: {}. It does not take the "
                          "certificate that this side shows, or wants one",
                          text));
    return;
  }
  for (const std::string_view beside : kBesidesErrors) {
    if (!text.starts_with(beside)) continue;
    spdlog::debug("gRPC: {}", text);
    return;
  }
  log->Warn(std::string(text), fmt::format("gRPC: {}", text));
}

}  // namespace

void RouteGrpcLog() { gpr_set_log_function(Log); }

}  // namespace echofs
