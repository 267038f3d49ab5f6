#include "cmd/guardian_link.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "cmd/daemon_context.h"
#include "replication/status_macros.h"

namespace echofs::cmd {
namespace {

constexpr std::size_t kMessageSizeMax = 4096;  // bytes

}  // namespace

std::string ReceiveLinkMessage(int fd) {
  std::string message(kMessageSizeMax, '\0');
  ssize_t got = 0;
  do {
    got = ::recv(fd, message.data(), message.size(), 0);
  } while (got < 0 && errno == EINTR);
  message.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  return message;
}

absl::Status SendLinkMessage(int fd, const std::string& message) {
  const std::size_t size = std::min(message.size(), kMessageSizeMax);
  ssize_t sent = 0;
  do {
    sent = ::send(fd, message.data(), size, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent == static_cast<ssize_t>(size)) return absl::OkStatus();
  return absl::UnavailableError(
      fmt::format("the other process of echofs is gone: {}", std::strerror(errno)));
}

void DaemonContext::ReportReady() const {
  // A guardian that is gone needs no telling; SIGTERM is on its way.
  SendLinkMessage(link_fd, {kLinkReady}).IgnoreError();
}

absl::Status DaemonContext::Unmount() const {
  ECHOFS_RETURN_IF_ERROR(SendLinkMessage(link_fd, {kLinkUnmount}));
  const std::string answer = ReceiveLinkMessage(link_fd);
  if (answer.empty() || answer[0] != kLinkUnmounted) {
    return absl::UnavailableError("the guardian process of echofs is gone");
  }
  return answer.size() == 1 ? absl::OkStatus() : absl::InternalError(answer.substr(1));
}

}  // namespace echofs::cmd
