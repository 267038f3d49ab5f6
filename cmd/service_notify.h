// What a service tells the service manager that started it: systemd's notification protocol, sd_notify(3).
// One datagram a message to the socket that NOTIFY_SOCKET names.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

namespace echofs::cmd {

// Without a service manager it says nothing. Not thread-safe.
class ServiceNotify {
 public:
  // Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID and removes them from the environment, so that no
  // child speaks for this process. While the process has one thread.
  static ServiceNotify FromEnvironment();

  // Within this time AnswerWatchdog has to be called again and again; nothing when nobody waits for it.
  std::optional<std::chrono::microseconds> watchdog_timeout() const { return watchdog_timeout_; }

  void Ready() const { Send("READY=1"); }
  void Stopping() const { Send("STOPPING=1"); }
  void AnswerWatchdog() const { Send("WATCHDOG=1"); }

 private:
  // Waits for room in the socket, but not for long. A failure goes to the log.
  void Send(std::string_view message) const;

  std::string socket_;  // a path, or "@" and an abstract name; empty: no service manager
  std::optional<std::chrono::microseconds> watchdog_timeout_;
};

}  // namespace echofs::cmd
