#include "tests/fs/sqlite_process.h"

#include <poll.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "replication/status_macros.h"

namespace echofs::fs {
namespace {

void WriteAll(int descriptor, const void* bytes, std::size_t size) {
  const char* p = static_cast<const char*>(bytes);
  while (size != 0) {
    const ssize_t n = send(descriptor, p, size, MSG_NOSIGNAL);
    if (n <= 0) return;
    p += n;
    size -= n;
  }
}

bool ReadAll(int descriptor, void* bytes, std::size_t size) {
  char* p = static_cast<char*>(bytes);
  while (size != 0) {
    const ssize_t n = recv(descriptor, p, size, 0);
    if (n <= 0) return false;
    p += n;
    size -= n;
  }
  return true;
}

void WriteText(int descriptor, char kind, const std::string& text) {
  const auto size = static_cast<std::uint32_t>(text.size());
  std::string message(1, kind);
  message.append(reinterpret_cast<const char*>(&size), sizeof(size));
  message += text;
  WriteAll(descriptor, message.data(), message.size());
}

bool ReadText(int descriptor, char* kind, std::string* text) {
  std::uint32_t size = 0;
  if (!ReadAll(descriptor, kind, 1) || !ReadAll(descriptor, &size, sizeof(size))) return false;
  text->resize(size);
  return ReadAll(descriptor, text->data(), size);
}

int AppendRow(void* context, int columns, char** values, char**) {
  auto* out = static_cast<std::string*>(context);
  if (!out->empty()) *out += '\n';
  for (int i = 0; i < columns; ++i) {
    if (i != 0) *out += '|';
    *out += values[i] == nullptr ? "NULL" : values[i];
  }
  return 0;
}

std::string RunSql(sqlite3* database, const std::string& sql) {
  std::string rows;
  const int rc = sqlite3_exec(database, sql.c_str(), AppendRow, &rows, nullptr);
  if (rc == SQLITE_OK) return rows;
  return "error " + std::to_string(rc & 0xff) + ": " + sqlite3_errmsg(database);
}

bool SomethingToRead(int descriptor) {
  struct pollfd p = {descriptor, POLLIN, 0};
  return poll(&p, 1, 0) != 0;
}

std::string Check(sqlite3* database, int socket, const std::string& queries) {
  const std::size_t cut = queries.find('\n');
  const std::string first = queries.substr(0, cut);
  const std::string second = queries.substr(cut + 1);
  int count = 0;
  std::string wrong;
  while (wrong.empty() && !SomethingToRead(socket)) {
    wrong = RunSql(database, "BEGIN");
    const std::string a = wrong.empty() ? RunSql(database, first) : "";
    const std::string b = wrong.empty() ? RunSql(database, second) : "";
    if (wrong.empty() && (a.empty() || a != b || a.rfind("error", 0) == 0)) {
      wrong = "first: " + a + " second: " + b;
    }
    const std::string end = RunSql(database, "COMMIT");
    if (wrong.empty()) wrong = end;
    ++count;
  }
  return std::to_string(count) + (wrong.empty() ? " ok" : " " + wrong);
}

[[noreturn]] void Child(const std::string& path, int busy_timeout_ms, int socket) {
  for (int descriptor = 3; descriptor < 1024; ++descriptor) {
    if (descriptor != socket) close(descriptor);
  }
  sqlite3* database = nullptr;
  if (sqlite3_open(path.c_str(), &database) != SQLITE_OK) _exit(1);
  sqlite3_busy_timeout(database, busy_timeout_ms);
  char kind;
  std::string text;
  while (ReadText(socket, &kind, &text)) {
    if (kind == 'q') {
      sqlite3_close(database);
      WriteText(socket, 'a', "");
      break;
    }
    if (kind == 's')
      continue;  // stop of a check that has ended by itself: its answer is on the way
    WriteText(socket, 'a', kind == 'c' ? Check(database, socket, text) : RunSql(database, text));
  }
  _exit(0);
}

}  // namespace

SqliteProcess::SqliteProcess(const std::string& path, int busy_timeout_ms) {
  int sockets[2];
  ECHOFS_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0);
  pid_ = fork();
  ECHOFS_CHECK(pid_ >= 0);
  if (pid_ == 0) Child(path, busy_timeout_ms, sockets[1]);
  close(sockets[1]);
  socket_ = sockets[0];
}

SqliteProcess::~SqliteProcess() {
  if (pid_ != 0) Kill();
  close(socket_);
}

void SqliteProcess::Send(char kind, const std::string& text) { WriteText(socket_, kind, text); }

std::string SqliteProcess::Receive() {
  char kind;
  std::string text;
  return ReadText(socket_, &kind, &text) ? text : "error: the process is gone";
}

std::string SqliteProcess::Run(const std::string& sql) {
  Send('r', sql);
  return Receive();
}

void SqliteProcess::StartChecking(const std::string& first, const std::string& second) {
  Send('c', first + "\n" + second);
}

std::string SqliteProcess::StopChecking() {
  Send('s', "");
  const std::string answer = Receive();
  checked_ = std::atoi(answer.c_str());
  return answer.substr(answer.find(' ') + 1);
}

void SqliteProcess::Kill() {
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = 0;
}

void SqliteProcess::Quit() {
  Run("");
  Send('q', "");
  Receive();
  waitpid(pid_, nullptr, 0);
  pid_ = 0;
}

}  // namespace echofs::fs
