#include "tests/cmd/notify_socket.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "tests/cmd/test_util.h"

namespace echofs::cmd::test {

NotifySocket::NotifySocket(const std::string& address)
    : fd_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  REQUIRE(address.size() < sizeof(name.sun_path));
  std::memcpy(name.sun_path, address.data(), address.size());
  if (address[0] == '@') name.sun_path[0] = '\0';
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address.size());
  REQUIRE(::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&name), size) == 0);
  ::setenv("NOTIFY_SOCKET", address.c_str(), 1);
}

NotifySocket::~NotifySocket() { ::unsetenv("NOTIFY_SOCKET"); }

const std::vector<std::string>& NotifySocket::messages() {
  std::array<char, 256> buffer;
  ssize_t got = 0;
  while ((got = ::recv(fd_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT)) > 0) {
    messages_.emplace_back(buffer.data(), static_cast<std::size_t>(got));
  }
  return messages_;
}

int NotifySocket::Count(const std::string& message) {
  return static_cast<int>(std::count(messages().begin(), messages().end(), message));
}

bool NotifySocket::WaitForMessage(const std::string& message, int count) {
  return WaitFor([&] { return Count(message) >= count; });
}

}  // namespace echofs::cmd::test
