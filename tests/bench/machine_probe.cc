#include "tests/bench/machine_probe.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <barrier>
#include <cerrno>
#include <chrono>
#include <functional>
#include <system_error>
#include <thread>

namespace echofs {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kWriteSize = 2 * 4096;
// A WAL is written from its start again after about as much.
constexpr off_t kFileSize = 4 << 20;
constexpr std::size_t kMessageSize = 128;

void Check(bool ok, const char* what) {
  if (!ok) throw std::system_error(errno, std::generic_category(), what);
}

class SyncedFile {
 public:
  explicit SyncedFile(const std::string& path)
      : path_(path), descriptor_(open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) {
    Check(descriptor_ >= 0, path.c_str());
  }
  ~SyncedFile() {
    close(descriptor_);
    unlink(path_.c_str());
  }
  SyncedFile(const SyncedFile&) = delete;
  SyncedFile& operator=(const SyncedFile&) = delete;

  void WriteAndSync() {
    const ssize_t written = pwrite(descriptor_, bytes_.data(), bytes_.size(), at_);
    Check(written == static_cast<ssize_t>(bytes_.size()), path_.c_str());
    Check(fdatasync(descriptor_) == 0, path_.c_str());
    at_ = (at_ + static_cast<off_t>(kWriteSize)) % kFileSize;
  }

 private:
  const std::string path_;
  const int descriptor_;
  const std::array<char, kWriteSize> bytes_{};
  off_t at_ = 0;
};

// Calls `what` for so long; how long each call took.
std::vector<float> Repeat(double seconds, const std::function<void()>& what) {
  std::vector<float> taken;
  const auto start = Clock::now();
  auto before = start;
  while (std::chrono::duration<double>(before - start).count() < seconds) {
    what();
    const auto after = Clock::now();
    taken.push_back(std::chrono::duration<float, std::micro>(after - before).count());
    before = after;
  }
  return taken;
}

std::vector<float> MeasurePairedSync(const std::string& directory, double seconds) {
  SyncedFile first(directory + "/probe-1");
  SyncedFile second(directory + "/probe-2");
  bool done = false;
  std::barrier both(2);
  std::thread other([&] {
    for (both.arrive_and_wait(); !done; both.arrive_and_wait()) {
      second.WriteAndSync();
      both.arrive_and_wait();
    }
  });
  std::vector<float> taken = Repeat(seconds, [&] {
    both.arrive_and_wait();
    first.WriteAndSync();
    both.arrive_and_wait();
  });
  done = true;
  both.arrive_and_wait();
  other.join();
  return taken;
}

// Both ends of a TCP connection on loopback.
std::array<int, 2> Connect() {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  Check(listener >= 0 && bind(listener, generic, size) == 0 && listen(listener, 1) == 0 &&
            getsockname(listener, generic, &size) == 0,
        "listening on loopback");
  const int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  Check(client >= 0 && connect(client, generic, size) == 0, "connecting on loopback");
  const int server = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
  Check(server >= 0, "accepting on loopback");
  close(listener);
  for (const int end : {client, server}) {
    const int on = 1;
    Check(setsockopt(end, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0, "TCP_NODELAY");
  }
  return {client, server};
}

bool Receive(int descriptor) {
  std::array<char, kMessageSize> message;
  return recv(descriptor, message.data(), message.size(), MSG_WAITALL) ==
         static_cast<ssize_t>(message.size());
}

void Send(int descriptor) {
  const std::array<char, kMessageSize> message{};
  Check(send(descriptor, message.data(), message.size(), MSG_NOSIGNAL) ==
            static_cast<ssize_t>(message.size()),
        "sending on loopback");
}

std::vector<float> MeasureRoundTrip(double seconds) {
  const auto [client, server] = Connect();
  std::thread answering([server = server] {
    while (Receive(server)) Send(server);
  });
  std::vector<float> taken = Repeat(seconds, [client = client] {
    Send(client);
    Check(Receive(client), "receiving on loopback");
  });
  shutdown(client, SHUT_RDWR);
  answering.join();
  close(client);
  close(server);
  return taken;
}

}  // namespace

MachineTimes MeasureMachine(const std::string& directory, double seconds) {
  MachineTimes times;
  {
    SyncedFile file(directory + "/probe");
    times.sync = Repeat(seconds, [&file] { file.WriteAndSync(); });
  }
  times.paired_sync = MeasurePairedSync(directory, seconds);
  times.round_trip = MeasureRoundTrip(seconds);
  return times;
}

}  // namespace echofs
