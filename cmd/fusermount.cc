#include "cmd/fusermount.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "replication/status_macros.h"

namespace echofs::cmd {
namespace {

constexpr const char* kProgram = "fusermount3";
constexpr std::size_t kMessageSizeMax = 4096;  // bytes of what the program says
constexpr int kExitCodeNotFound = 127;

// Runs fusermount3 in the child. `comm_fd` (or -1) is the socket for the descriptor.
[[noreturn]] void Exec(const std::vector<std::string>& arguments, int comm_fd, int error_fd) {
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  ::dup2(error_fd, STDOUT_FILENO);
  ::dup2(error_fd, STDERR_FILENO);
  if (comm_fd >= 0) {
    ::fcntl(comm_fd, F_SETFD, 0);
    ::setenv("_FUSE_COMMFD", std::to_string(comm_fd).c_str(), 1);
  }
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::execvp(kProgram, argv.data());
  ::_exit(kExitCodeNotFound);
}

std::string ReadAll(int fd) {
  std::string text(kMessageSizeMax, '\0');
  std::size_t size = 0;
  while (size < text.size()) {
    const ssize_t got = ::read(fd, text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    size += static_cast<std::size_t>(got);
  }
  text.resize(size);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

absl::Status Run(const std::vector<std::string>& arguments, int comm_fd) {
  std::array<int, 2> pipe_fds;
  if (::pipe2(pipe_fds.data(), O_CLOEXEC) != 0) {
    return absl::InternalError(fmt::format("cannot make a pipe: {}", std::strerror(errno)));
  }
  const UniqueFd read_end(pipe_fds[0]);
  UniqueFd write_end(pipe_fds[1]);
  const pid_t child = ::fork();
  if (child < 0) return absl::InternalError(fmt::format("cannot fork: {}", std::strerror(errno)));
  if (child == 0) Exec(arguments, comm_fd, write_end.get());
  write_end.Reset();
  const std::string said = ReadAll(read_end.get());
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return absl::OkStatus();
  if (WIFEXITED(status) && WEXITSTATUS(status) == kExitCodeNotFound) {
    return absl::NotFoundError(
        fmt::format("the program {} is needed to mount as an ordinary user; install the package "
                    "fuse3, or run as root",
                    kProgram));
  }
  return absl::InternalError(said.empty() ? fmt::format("{} failed", kProgram) : said);
}

// The descriptor that the program sent, as SCM_RIGHTS beside one byte.
absl::StatusOr<UniqueFd> ReceiveDescriptor(int socket) {
  char byte = 0;
  iovec vector{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t got = 0;
  do {
    got = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  } while (got < 0 && errno == EINTR);
  const cmsghdr* header = got > 0 ? CMSG_FIRSTHDR(&message) : nullptr;
  if (header == nullptr || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS ||
      header->cmsg_len != CMSG_LEN(sizeof(int))) {
    return absl::InternalError(fmt::format("{} sent no descriptor", kProgram));
  }
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(header), sizeof(fd));
  return UniqueFd(fd);
}

}  // namespace

absl::StatusOr<UniqueFd> FusermountMount(const std::string& mount_point, bool allow_other,
                                         int max_read_bytes) {
  std::array<int, 2> sockets;
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets.data()) != 0) {
    return absl::InternalError(fmt::format("cannot make a socket: {}", std::strerror(errno)));
  }
  const UniqueFd ours(sockets[0]);
  const UniqueFd theirs(sockets[1]);
  const std::string options =
      fmt::format("rw,nosuid,nodev,fsname=echofs,subtype=echofs,default_permissions,max_read={}{}",
                  max_read_bytes, allow_other ? ",allow_other" : "");
  if (const absl::Status status = Run({kProgram, "-o", options, "--", mount_point}, theirs.get());
      !status.ok()) {
    return absl::Status(
        status.code(),
        fmt::format("cannot mount on {}: {}{}", mount_point, std::string(status.message()),
                    allow_other
                        ? "; an ordinary user may use allow-other only when /etc/fuse.conf has the "
                          "line user_allow_other"
                        : ""));
  }
  return ReceiveDescriptor(ours.get());
}

absl::Status FusermountUnmount(const std::string& mount_point, bool lazy) {
  std::vector<std::string> arguments = {kProgram, "-u"};
  if (lazy) arguments.emplace_back("-z");
  arguments.emplace_back("--");
  arguments.push_back(mount_point);
  return Run(arguments, -1);
}

}  // namespace echofs::cmd
