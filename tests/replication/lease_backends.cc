#include "tests/replication/lease_backends.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/time/clock.h"
#include "replication/etcd_lease.h"
#include "replication/lease_server.h"
#include "replication/service_lease.h"
#include "tests/catch.h"

namespace echofs::test {
namespace {

constexpr absl::Duration kPatience = absl::Minutes(2);

// The lease server in this process.
class LeaseServerHere final : public LeaseBackend {
 public:
  LeaseServerHere() { Restart(); }
  std::unique_ptr<Lease> Connect(const std::string& key) override {
    return MakeServiceLease({fmt::format("127.0.0.1:{}", port_)}, key);
  }
  void Restart() override {
    server_.reset();
    auto server =
        LeaseServer::Start(fmt::format("127.0.0.1:{}", port_), directory_.path() + "/lease.db");
    INFO(server.status());
    REQUIRE(server.ok());
    server_ = *std::move(server);
    port_ = server_->port();
  }

 private:
  const TempDirectory directory_;
  int port_ = 0;
  std::unique_ptr<LeaseServer> server_;
};

}  // namespace

Process::Process(const std::vector<std::string>& arguments, const std::string& log) {
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const pid_t parent = getpid();
  pid_ = fork();
  REQUIRE(pid_ >= 0);
  if (pid_ > 0) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);
  const int out = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  dup2(out, STDOUT_FILENO);
  dup2(out, STDERR_FILENO);
  execv(argv[0], argv.data());
  _exit(127);
}

Process::~Process() { Kill(); }

void Process::Kill() {
  if (pid_ == 0) return;
  kill(pid_, SIGKILL);
  WaitForEnd();
}

int Process::Terminate() {
  kill(pid_, SIGTERM);
  return WaitForEnd();
}

int Process::WaitForEnd() {
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = 0;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

absl::StatusOr<LeaseRecord> SetInSync(Lease& lease, Term term, const std::string& node_id,
                                      const std::vector<std::string>& in_sync) {
  const absl::StatusOr<LeaseState> state = lease.Read();
  if (!state.ok()) return state.status();
  return lease.SetInSync(term, node_id, state->record.revision, in_sync);
}

int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(fd >= 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  REQUIRE(bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0);
  REQUIRE(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  close(fd);
  return ntohs(address.sin_port);
}

void Await(const std::string& what, const std::function<bool()>& condition) {
  const absl::Time deadline = absl::Now() + kPatience;
  while (!condition()) {
    INFO("waiting for " << what);
    REQUIRE(absl::Now() < deadline);
    absl::SleepFor(absl::Milliseconds(10));
  }
}

std::unique_ptr<LeaseBackend> StartBackend(const std::string& name) {
  if (name == "server") return std::make_unique<LeaseServerHere>();
  if (name == "process") return std::make_unique<LeaseServerProcess>();
  REQUIRE(name == "etcd");
  return std::make_unique<EtcdCluster>(1);
}

LeaseServerProcess::LeaseServerProcess(const std::string& data_directory)
    : data_directory_(data_directory.empty() ? directory_.path() + "/data" : data_directory),
      port_(FreePort()) {
  Start();
  AwaitAnswer();
}

std::string LeaseServerProcess::address() const { return fmt::format("127.0.0.1:{}", port_); }

void LeaseServerProcess::Start() {
  process_ =
      std::make_unique<Process>(std::vector<std::string>{ECHOFS_BINARY, "lease-server", "--listen",
                                                         address(), "--data-dir", data_directory_},
                                log());
}

std::unique_ptr<Lease> LeaseServerProcess::Connect(const std::string& key) {
  return MakeServiceLease({address()}, key);
}

void LeaseServerProcess::Restart() {
  process_->Kill();
  Start();
  AwaitAnswer();
}

void LeaseServerProcess::AwaitAnswer() {
  const std::unique_ptr<Lease> lease = Connect();
  Await("the lease server", [&] { return lease->Read().ok(); });
}

EtcdCluster::EtcdCluster(int members) : processes_(members) {
  for (int i = 0; i < members; ++i) {
    client_ports_.push_back(FreePort());
    peer_ports_.push_back(FreePort());
  }
  for (int i = 0; i < members; ++i) StartMember(i);
  AwaitAnswer();
}

void EtcdCluster::StartMember(int member) {
  std::string cluster;
  for (std::size_t i = 0; i < peer_ports_.size(); ++i) {
    cluster += fmt::format("{}m{}=http://127.0.0.1:{}", i == 0 ? "" : ",", i, peer_ports_[i]);
  }
  const std::string name = fmt::format("m{}", member);
  const std::string client = fmt::format("http://127.0.0.1:{}", client_ports_[member]);
  const std::string peer = fmt::format("http://127.0.0.1:{}", peer_ports_[member]);
  processes_[member] = std::make_unique<Process>(
      std::vector<std::string>{"/usr/bin/etcd", "--name", name, "--data-dir",
                               directory_.path() + "/" + name, "--listen-client-urls", client,
                               "--advertise-client-urls", client, "--listen-peer-urls", peer,
                               "--initial-advertise-peer-urls", peer, "--initial-cluster", cluster,
                               "--log-level", "error"},
      directory_.path() + "/" + name + ".log");
}

std::vector<std::string> EtcdCluster::endpoints() const {
  std::vector<std::string> all;
  for (const int port : client_ports_) all.push_back(fmt::format("127.0.0.1:{}", port));
  return all;
}

std::unique_ptr<Lease> EtcdCluster::Connect(const std::string& key) {
  return MakeEtcdLease(endpoints(), key);
}

std::unique_ptr<Lease> EtcdCluster::ConnectTo(int member, const std::string& key) {
  return MakeEtcdLease({endpoints()[member]}, key);
}

void EtcdCluster::Restart() {
  for (std::size_t i = 0; i < processes_.size(); ++i) KillMember(static_cast<int>(i));
  for (std::size_t i = 0; i < processes_.size(); ++i) StartMember(static_cast<int>(i));
  AwaitAnswer();
}

void EtcdCluster::AwaitAnswer() {
  const std::unique_ptr<Lease> lease = Connect();
  Await("etcd", [&] { return lease->Read().ok(); });
}

}  // namespace echofs::test
