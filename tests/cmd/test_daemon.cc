#define FUSE_USE_VERSION 312

#include "tests/cmd/test_daemon.h"

#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <string_view>
#include <thread>

#include "replication/status_macros.h"

namespace echofs::cmd::test {
namespace {

constexpr fuse_ino_t kHello = 2;
constexpr fuse_ino_t kHang = 3;
constexpr std::string_view kHelloText = "hello\n";

struct stat Attributes(fuse_ino_t inode) {
  struct stat attributes {};
  attributes.st_ino = inode;
  attributes.st_mode = inode == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0644;
  attributes.st_nlink = 1;
  attributes.st_size = inode == kHello ? static_cast<off_t>(kHelloText.size()) : 0;
  return attributes;
}

void Lookup(fuse_req_t request, fuse_ino_t, const char* name) {
  fuse_entry_param entry{};
  entry.ino = std::string_view(name) == "hello"  ? kHello
              : std::string_view(name) == "hang" ? kHang
                                                 : 0;
  if (entry.ino == 0) {
    fuse_reply_err(request, ENOENT);
    return;
  }
  entry.attr = Attributes(entry.ino);
  fuse_reply_entry(request, &entry);
}

void GetAttr(fuse_req_t request, fuse_ino_t inode, fuse_file_info*) {
  const struct stat attributes = Attributes(inode);
  fuse_reply_attr(request, &attributes, 0);
}

void ReadDir(fuse_req_t request, fuse_ino_t, std::size_t size, off_t offset, fuse_file_info*) {
  std::array<char, 256> buffer;
  const struct stat attributes = Attributes(kHello);
  std::size_t used = 0;
  if (offset == 0) {
    used = fuse_add_direntry(request, buffer.data(), std::min(size, buffer.size()), "hello",
                             &attributes, 1);
  }
  fuse_reply_buf(request, buffer.data(), used);
}

void Open(fuse_req_t request, fuse_ino_t inode, fuse_file_info* file) {
  if (inode == kHang) {
    std::ofstream(static_cast<const TestDaemonOptions*>(fuse_req_userdata(request))->marker) << "x";
    return;
  }
  fuse_reply_open(request, file);
}

void Read(fuse_req_t request, fuse_ino_t, std::size_t size, off_t offset, fuse_file_info*) {
  const std::string_view rest =
      kHelloText.substr(std::min(static_cast<std::size_t>(offset), kHelloText.size()));
  fuse_reply_buf(request, rest.data(), std::min(size, rest.size()));
}

fuse_session* NewSession(int fuse_fd, const TestDaemonOptions* options) {
  fuse_lowlevel_ops operations{};
  operations.lookup = Lookup;
  operations.getattr = GetAttr;
  operations.readdir = ReadDir;
  operations.open = Open;
  operations.read = Read;
  std::string name = "test";
  std::array<char*, 2> argv = {name.data(), nullptr};
  fuse_args arguments = FUSE_ARGS_INIT(1, argv.data());
  fuse_session* session = fuse_session_new(&arguments, &operations, sizeof(operations),
                                           const_cast<TestDaemonOptions*>(options));
  ECHOFS_CHECK(session != nullptr);
  ECHOFS_CHECK(fuse_session_mount(session, ("/dev/fd/" + std::to_string(fuse_fd)).c_str()) == 0);
  return session;
}

}  // namespace

int RunTestDaemon(const DaemonContext& context, const TestDaemonOptions& options) {
  fuse_session* session = NewSession(context.fuse_fd, &options);
  // Detached: after a lazy unmount the loop goes on until the process ends.
  std::thread([session] {
    fuse_session_loop(session);
    ::kill(::getpid(), SIGTERM);
  }).detach();
  if (options.open_own_file) {
    std::thread([path = context.mount_point + "/hang"] {
      ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    }).detach();
  }
  std::ofstream(options.pid_file) << ::getpid() << std::flush;
  context.ReportReady();
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  int signal = 0;
  sigwait(&signals, &signal);
  return context.Unmount().ok() ? 0 : 1;
}

}  // namespace echofs::cmd::test
