// SQLite in a process of its own, for tests in which an application's locks and shared memory
// matter.
#pragma once

#include <string>

namespace echofs::fs {

// Forks at construction; so make it while this process has one thread. Killed at destruction if it
// is still there. One command at a time.
class SqliteProcess {
 public:
  // Opens the database with a busy timeout in ms, and no other setup.
  explicit SqliteProcess(const std::string& path, int busy_timeout_ms = 0);
  ~SqliteProcess();
  SqliteProcess(const SqliteProcess&) = delete;
  SqliteProcess& operator=(const SqliteProcess&) = delete;

  // Runs SQL and waits for the answer: rows as "a|b" joined by newlines, or "error N: message" with
  // SQLite's primary result code.
  std::string Run(const std::string& sql);
  // Starts running transactions "BEGIN; first; second; COMMIT" where the two queries must give the
  // same, not empty answer, as fast as it can until Stop, which returns "ok" or what went wrong.
  void StartChecking(const std::string& first, const std::string& second);
  std::string StopChecking();
  // Transactions that the last StartChecking .. StopChecking ran.
  int checked() const { return checked_; }

  int pid() const { return pid_; }
  void Kill();  // SIGKILL, and waits
  void Quit();  // closes the connection, ends, and waits

 private:
  void Send(char kind, const std::string& text);
  std::string Receive();

  int pid_ = 0;
  int socket_ = -1;
  int checked_ = 0;
};

}  // namespace echofs::fs
