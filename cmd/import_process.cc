#include "cmd/import_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <csignal>
#include <nlohmann/json.hpp>
#include <vector>

#include "cmd/unique_fd.h"
#include "replication/status_macros.h"
#include "replication/storage.h"

extern char** environ;

namespace echofs::cmd {
namespace {

constexpr std::size_t kOutputMax = 64 << 10;  // bytes, of what it says
constexpr int kPollMs = 100;

// Starts it with its stdout and stderr in `output`.
absl::StatusOr<pid_t> Spawn(std::vector<std::string> words, int output) {
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, output, STDERR_FILENO);
  // The daemon blocks the signals that it waits for.
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  pid_t pid = 0;
  const int error =
      ::posix_spawn(&pid, "/proc/self/exe", &actions, &attributes, arguments.data(), environ);
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return StatusFromErrno(error, "cannot start 'echofs import'");
  return pid;
}

// Reads until the process has closed its end.
std::string ReadOutput(int fd, pid_t pid, const std::function<bool()>& cancelled) {
  std::string output;
  std::vector<char> buffer(4096);
  while (true) {
    pollfd ready = {fd, POLLIN, 0};
    if (::poll(&ready, 1, kPollMs) <= 0) {
      if (cancelled()) ::kill(pid, SIGKILL);
      continue;
    }
    const ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return output;
    if (output.size() < kOutputMax) output.append(buffer.data(), static_cast<std::size_t>(n));
  }
}

absl::StatusOr<DatabasePosition> ParsePosition(const std::string& line) {
  const nlohmann::json json = nlohmann::json::parse(line, nullptr, false);
  DatabasePosition position;
  const auto hex = [&json](const char* key, std::uint64_t* value) {
    const std::string text = json.value(key, "");
    return std::from_chars(text.data(), text.data() + text.size(), *value, 16).ec == std::errc();
  };
  if (!json.is_object() || !hex("txid", &position.txid.value) || !hex("digest", &position.digest)) {
    return absl::InternalError(fmt::format("'echofs import' answered '{}'", line));
  }
  position.name = json.value("name", "");
  position.page_count = json.value("pages", 0u);
  position.page_size = json.value("page_size", 0u);
  return position;
}

// Its lines without the name of the program before them.
std::string WithoutProgram(std::string text) {
  constexpr std::string_view kProgram = "echofs: ";
  if (const std::size_t at = text.rfind(kProgram); at != std::string::npos) {
    text.erase(0, at + kProgram.size());
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

}  // namespace

absl::StatusOr<DatabasePosition> RunImport(const std::string& data_dir,
                                           const ReceivedImport& import,
                                           const std::function<bool()>& cancelled) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return StatusFromErrno(errno, "cannot make a pipe");
  const UniqueFd reading(ends[0]);
  UniqueFd writing(ends[1]);
  // A name may begin with a dash.
  std::vector<std::string> words = {"echofs",
                                    "import",
                                    "--received",
                                    "--json",
                                    "--data-dir",
                                    data_dir,
                                    "--db=" + import.database,
                                    "--file=" + import.file};
  if (import.replace) words.emplace_back("--replace");
  ECHOFS_ASSIGN_OR_RETURN(const pid_t pid, Spawn(std::move(words), writing.get()));
  writing.Reset();
  const std::string output = ReadOutput(reading.get(), pid, cancelled);
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (cancelled()) return absl::CancelledError("the import was cancelled");
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
    const std::size_t line = output.rfind('{');
    return ParsePosition(line == std::string::npos ? output : output.substr(line));
  }
  return absl::FailedPreconditionError(output.empty() ? "'echofs import' was killed"
                                                      : WithoutProgram(output));
}

}  // namespace echofs::cmd
