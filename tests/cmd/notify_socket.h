// The service manager's side of its protocol, for tests.
#pragma once

#include <string>
#include <vector>

#include "cmd/unique_fd.h"

namespace echofs::cmd::test {

// A datagram socket, named by NOTIFY_SOCKET in this process's environment for its life.
class NotifySocket {
 public:
  // `address`: a path, or "@" and an abstract name.
  explicit NotifySocket(const std::string& address);
  ~NotifySocket();
  NotifySocket(const NotifySocket&) = delete;
  NotifySocket& operator=(const NotifySocket&) = delete;

  // What has come up to now, in order.
  const std::vector<std::string>& messages();
  // Waits until `message` has come `count` times.
  bool WaitForMessage(const std::string& message, int count = 1);
  int Count(const std::string& message);

 private:
  UniqueFd fd_;
  std::vector<std::string> messages_;
};

}  // namespace echofs::cmd::test
