#include "tests/replication/test_cluster.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>

#include "absl/time/clock.h"
#include "replication/status_macros.h"
#include "tests/catch.h"

namespace echofs {
namespace {

std::uint64_t NextRandom(std::atomic<std::uint64_t>& state) {
  std::uint64_t x = state += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Nobody else's for the moment. Its address must be known before the node listens: others are told.
int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ECHOFS_CHECK(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  ECHOFS_CHECK(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  close(fd);
  return ntohs(address.sin_port);
}

}  // namespace

bool Eventually(const std::function<bool()>& condition) {
  const absl::Time deadline = absl::Now() + absl::Minutes(1);
  while (!condition()) {
    if (absl::Now() > deadline) return false;
    absl::SleepFor(absl::Milliseconds(1));
  }
  return true;
}

TestNode::TestNode(std::string id) : id_(std::move(id)), random_(std::hash<std::string>()(id_)) {
  log_options.segment_size = 16 << 10;
  log_options.retention_size = 0;
  log_options.retention_age = absl::ZeroDuration();
}

TestNode::~TestNode() { Kill(); }

absl::Status TestNode::StartPrimary() {
  NodeOptions options;
  options.listen = address();
  options.advertise = address();
  ECHOFS_RETURN_IF_ERROR(Start(std::move(options)));
  port_ = node_->port();
  return absl::OkStatus();
}

absl::Status TestNode::StartReplica(const std::string& primary_address) {
  NodeOptions options;
  options.advertise = id_ + ":1";
  options.lease_primary = primary_address;
  return Start(std::move(options));
}

absl::Status TestNode::StartMember(TableLeaseService* service, absl::Duration ttl, bool candidate) {
  lease_ = service->ForNode(id_);
  if (port_ == 0) port_ = FreePort();
  fence_.OpenUntil(absl::InfinitePast());
  NodeOptions options;
  options.listen = address();
  options.advertise = address();
  options.lease = lease_.get();
  options.fence = &fence_;
  options.lease_ttl = ttl;
  options.candidate = candidate;
  ECHOFS_RETURN_IF_ERROR(Start(std::move(options)));
  node_->WaitSettled();
  return absl::OkStatus();
}

bool TestNode::TryCommit(const std::string& database) {
  if (node_->role() != NodeRole::kPrimary || !fence_.open()) return false;
  Commit(database);
  return true;
}

absl::Status TestNode::Start(NodeOptions options) {
  ECHOFS_CHECK(node_ == nullptr);
  store_.Restart();
  ECHOFS_ASSIGN_OR_RETURN(log_, ChangeLog::Open(directory_ / "log", log_options));
  options.data_directory = directory_.path();
  options.node_id = id_;
  options.version = "test";
  options.maintenance_interval = maintenance_interval;
  node_ = std::make_unique<Node>(std::move(options), log_.get(), &store_, PosixStorage());
  absl::Status status = node_->Start();
  if (!status.ok()) Kill();
  return status;
}

void TestNode::Stop() {
  ECHOFS_CHECK(node_->Stop().ok());
  Kill();
}

void TestNode::Kill() {
  node_ = nullptr;
  log_ = nullptr;
  lease_ = nullptr;
}

LogIndex TestNode::Commit(const std::string& database, int transactions) {
  LogIndex index;
  for (int i = 0; i < transactions; ++i) {
    // Sizes go up and down between 1 and 40 pages; a page that comes back is written.
    const absl::StatusOr<DatabasePosition> position = store_.AppliedPosition(database);
    const PageNumber before = position.ok() ? position->page_count : 0;
    const auto count = static_cast<PageNumber>(1 + NextRandom(random_) % 40);
    PageStore::Pages pages;
    const auto change = [&](PageNumber number) {
      PageStore::Page page(kTestPageSize);
      for (std::uint8_t& byte : page) byte = static_cast<std::uint8_t>(NextRandom(random_));
      pages[number] = std::move(page);
    };
    for (PageNumber number = before + 1; number <= count; ++number) change(number);
    for (int n = 0; n < 3; ++n) change(1 + static_cast<PageNumber>(NextRandom(random_) % count));
    index = store_.Commit(*log_, node_->term(), database, kTestPageSize, count, pages);
  }
  return index;
}

LogIndex TestNode::Drop(const std::string& database) {
  return store_.Drop(*log_, node_->term(), database);
}

void TestNode::ForgetLog() {
  // A segment ends only when the next one begins.
  const LogIndex last = log_->last_index();
  while (log_->first_index() <= last) {
    Commit("filler", 8);
    ECHOFS_CHECK(log_->Retain(log_->last_index().Next()).ok());
  }
}

void TestNode::KeepLog() {
  log_options.segment_size = 8 << 20;
  log_options.retention_size = 1ull << 30;
  log_options.retention_age = absl::Hours(1);
}

DatabaseApplyStatus TestNode::database(const std::string& name) {
  for (DatabaseApplyStatus& status : node_->status().databases) {
    if (status.name == name) return std::move(status);
  }
  return {};
}

bool Converges(TestNode& primary, TestNode& replica) {
  const bool converged = Eventually([&] {
    const NodeStatus status = replica.node().status();
    return status.applied_index == primary.log().last_index() && status.ready &&
           status.log_last_index == primary.log().last_index() &&
           status.log_last_term == primary.log().last_term();
  });
  const NodeStatus status = replica.node().status();
  std::string states;
  for (const DatabaseApplyStatus& database : status.databases) {
    states += fmt::format("{} {} {} at {}\n", database.name, DatabaseStateName(database.state),
                          database.detail, database.applied_index.value);
  }
  INFO("error: " << status.last_error << "\n" << states);
  CHECK(converged);
  CHECK(replica.store().Dump() == primary.store().Dump());
  CHECK(replica.log().Positions() == primary.log().Positions());
  return converged && replica.store().Dump() == primary.store().Dump();
}

Writer::Writer(TestNode* primary, std::vector<std::string> databases)
    : thread_([this, primary, databases = std::move(databases)] {
        while (!stop_) {
          for (const std::string& database : databases) primary->Commit(database);
          ++done_;
        }
      }) {}

Writer::~Writer() {
  stop_ = true;
  thread_.join();
}

void Writer::WaitFor(std::uint64_t transactions) {
  const std::uint64_t goal = done_ + transactions;
  REQUIRE(Eventually([&] { return done_ >= goal; }));
}

}  // namespace echofs
