#include "replication/listen_check.h"

#include <errno.h>
#include <fmt/format.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

namespace echofs {

std::string WhyNotListening(const std::string& address, const std::string& setting) {
  const std::size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon + 1 == address.size()) {
    return "it has no port: write it as host:port, for example 0.0.0.0:20202";
  }
  std::string host = address.substr(0, colon);
  if (host.size() >= 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  if (const int rc = getaddrinfo(host.empty() ? nullptr : host.c_str(), address.c_str() + colon + 1,
                                 &hints, &found);
      rc != 0) {
    return fmt::format("{}: correct {}", gai_strerror(rc), setting);
  }
  int error = 0;
  if (const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0); fd >= 0) {
    const int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, 1) != 0) error = errno;
    close(fd);
  }
  freeaddrinfo(found);
  switch (error) {
    case 0:
      return "";
    case EADDRINUSE:
      return fmt::format(
          "another process uses this port (`ss -ltnp` names it): stop that process, or choose "
          "another port with {}",
          setting);
    case EADDRNOTAVAIL:
      return fmt::format("this machine has no such address: correct {}", setting);
    case EACCES:
      return fmt::format("no permission for this port: use one above 1023 with {}", setting);
    default:
      return strerror(error);
  }
}

}  // namespace echofs
