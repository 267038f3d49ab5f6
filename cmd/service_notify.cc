#include "cmd/service_notify.h"

#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "absl/strings/numbers.h"
#include "cmd/unique_fd.h"

namespace echofs::cmd {
namespace {

constexpr timeval kSendTimeout = {.tv_sec = 2, .tv_usec = 0};

std::string TakeVariable(const char* name) {
  const char* const value = std::getenv(name);
  std::string taken = value == nullptr ? "" : value;
  ::unsetenv(name);
  return taken;
}

// The address's size; 0 when it is none that this program can speak to.
socklen_t MakeAddress(const std::string& socket, sockaddr_un* address) {
  if (socket.size() < 2 || socket.size() >= sizeof(address->sun_path)) return 0;
  if (socket[0] != '/' && socket[0] != '@') return 0;
  address->sun_family = AF_UNIX;
  std::memcpy(address->sun_path, socket.data(), socket.size());
  const bool abstract = socket[0] == '@';
  if (abstract) address->sun_path[0] = '\0';
  // An abstract name is as long as the address says, a path ends with a zero byte.
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket.size() +
                                (abstract ? 0 : 1));
}

}  // namespace

ServiceNotify ServiceNotify::FromEnvironment() {
  ServiceNotify notify;
  notify.socket_ = TakeVariable("NOTIFY_SOCKET");
  const std::string timeout = TakeVariable("WATCHDOG_USEC");
  const std::string process = TakeVariable("WATCHDOG_PID");
  std::int64_t usec = 0;
  const bool meant = process.empty() || process == std::to_string(::getpid());
  if (!notify.socket_.empty() && meant && absl::SimpleAtoi(timeout, &usec) && usec > 0) {
    notify.watchdog_timeout_ = std::chrono::microseconds(usec);
  }
  return notify;
}

void ServiceNotify::Send(std::string_view message) const {
  if (socket_.empty()) return;
  sockaddr_un address{};
  const socklen_t size = MakeAddress(socket_, &address);
  if (size == 0) {
    spdlog::warn("NOTIFY_SOCKET ({}) is no unix socket: the service manager is not told {}",
                 socket_, message);
    return;
  }
  const UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &kSendTimeout, sizeof(kSendTimeout));
  if (::sendto(fd.get(), message.data(), message.size(), MSG_NOSIGNAL,
               reinterpret_cast<const sockaddr*>(&address), size) < 0) {
    spdlog::warn("the service manager cannot be told {} (NOTIFY_SOCKET {}): {}", message, socket_,
                 std::strerror(errno));
  }
}

}  // namespace echofs::cmd
