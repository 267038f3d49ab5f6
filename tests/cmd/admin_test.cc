#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "absl/synchronization/notification.h"
#include "cmd/admin_client.h"
#include "cmd/admin_server.h"
#include "cmd/config.h"
#include "cmd/version.h"
#include "tests/cmd/fake_admin_source.h"
#include "tests/cmd/test_util.h"

namespace echofs::cmd {
namespace {

using test::HasText;

TEST_CASE("admin: a status arrives as it was sent") {
  const test::TempDir dir;
  test::FakeAdminSource source;
  const auto server = AdminServer::Start(AdminSocketPath(dir.path()), &source);
  INFO(server.status());
  REQUIRE(server.ok());
  const auto client = AdminClient::Connect(dir.path());
  REQUIRE(client.ok());
  const absl::StatusOr<NodeStatus> got = (*client)->Status();
  INFO(got.status());
  REQUIRE(got.ok());
  const NodeStatus sent = source.Status();
  CHECK(got->node == sent.node);
  CHECK(got->role == sent.role);
  CHECK(got->ready == sent.ready);
  CHECK(got->term == sent.term);
  CHECK(got->primary == sent.primary);
  CHECK(got->log_index == sent.log_index);
  CHECK(got->log_term == sent.log_term);
  CHECK(got->in_sync == sent.in_sync);
  CHECK(got->cluster_id == sent.cluster_id);
  CHECK(got->last_error == sent.last_error);
  CHECK(got->log_first_index == sent.log_first_index);
  CHECK(got->log_size_bytes == sent.log_size_bytes);
  CHECK(got->orphans == sent.orphans);
  CHECK(got->rewinds.databases == sent.rewinds.databases);
  CHECK(got->rewinds.pages == sent.rewinds.pages);
  CHECK(got->rewinds.bytes == sent.rewinds.bytes);
  CHECK(got->http == sent.http);
  CHECK(got->version == Version());
  CHECK(got->pid == static_cast<std::uint64_t>(::getpid()));
  REQUIRE(got->replicas.size() == 1);
  CHECK(got->replicas[0].node == sent.replicas[0].node);
  CHECK(got->replicas[0].address == sent.replicas[0].address);
  CHECK(got->replicas[0].acked_index == sent.replicas[0].acked_index);
  CHECK(got->replicas[0].lag_ms == sent.replicas[0].lag_ms);
  CHECK(got->replicas[0].in_sync == sent.replicas[0].in_sync);
  REQUIRE(got->nodes.size() == sent.nodes.size());
  for (std::size_t i = 0; i < sent.nodes.size(); ++i) {
    CHECK(got->nodes[i].node == sent.nodes[i].node);
    CHECK(got->nodes[i].address == sent.nodes[i].address);
    CHECK(got->nodes[i].candidate == sent.nodes[i].candidate);
    CHECK(got->nodes[i].primary == sent.nodes[i].primary);
    CHECK(got->nodes[i].in_sync == sent.nodes[i].in_sync);
    CHECK(got->nodes[i].log_index == sent.nodes[i].log_index);
    CHECK(got->nodes[i].log_term == sent.nodes[i].log_term);
    CHECK(got->nodes[i].lag_ms == sent.nodes[i].lag_ms);
  }
}

TEST_CASE(
    "admin: a handoff and a promotion answer with the primary, or with the node's own error") {
  const test::TempDir dir;
  test::FakeAdminSource source;
  const auto server = AdminServer::Start(AdminSocketPath(dir.path()), &source);
  REQUIRE(server.ok());
  const auto client = AdminClient::Connect(dir.path());
  REQUIRE(client.ok());
  CHECK((*client)->Handoff("")->node == "b");
  const absl::StatusOr<PrimaryInfo> primary = (*client)->Handoff("d");
  REQUIRE(primary.ok());
  CHECK(primary->node == "d");
  CHECK(primary->term == Term{4});
  const absl::Status refused = (*client)->Handoff("c").status();
  CHECK(refused == absl::FailedPreconditionError("c is not connected to this primary"));

  CHECK((*client)->Promote(false)->term == Term{4});
  CHECK((*client)->Promote(true)->term == Term{5});
  // Not what the client says when the node is gone.
  source.lease_service = false;
  CHECK((*client)->Promote(false).status() ==
        absl::FailedPreconditionError("the lease service cannot be asked"));
}

// A handoff that takes as long as the test wants.
class SlowHandoff : public test::FakeAdminSource {
 public:
  absl::StatusOr<PrimaryInfo> Handoff(const std::string& to) override {
    begun.Notify();
    end.WaitForNotification();
    return FakeAdminSource::Handoff(to);
  }

  absl::Notification begun;
  absl::Notification end;
};

TEST_CASE("admin: a node tells its state while a handoff is under way") {
  const test::TempDir dir;
  SlowHandoff source;
  const auto server = AdminServer::Start(AdminSocketPath(dir.path()), &source);
  REQUIRE(server.ok());
  absl::StatusOr<PrimaryInfo> primary;
  std::thread asking([&] { primary = (*AdminClient::Connect(dir.path()))->Handoff("b"); });
  source.begun.WaitForNotification();
  const auto client = AdminClient::Connect(dir.path());
  REQUIRE(client.ok());
  CHECK((*client)->Status().ok());
  source.end.Notify();
  asking.join();
  CHECK(primary.ok());
}

TEST_CASE("admin: databases, local files and change sets arrive as they were sent") {
  const test::TempDir dir;
  test::FakeAdminSource source;
  const auto server = AdminServer::Start(AdminSocketPath(dir.path()), &source);
  REQUIRE(server.ok());
  const auto client = AdminClient::Connect(dir.path());
  REQUIRE(client.ok());

  const absl::StatusOr<std::vector<DatabaseInfo>> databases = (*client)->Databases();
  REQUIRE(databases.ok());
  REQUIRE(databases->size() == 2);
  const DatabaseInfo& got = (*databases)[1];
  const DatabaseInfo sent = source.Databases()[1];
  CHECK(got.name == sent.name);
  CHECK(got.txid == sent.txid);
  CHECK(got.digest == sent.digest);
  CHECK(got.pages == sent.pages);
  CHECK(got.page_size == sent.page_size);
  CHECK(got.journal_mode == sent.journal_mode);
  CHECK(got.state == sent.state);
  CHECK(got.applied_index == sent.applied_index);
  CHECK(got.blocked_by_pid == sent.blocked_by_pid);
  CHECK(got.blocked_for_ms == sent.blocked_for_ms);
  CHECK(got.copy_pages_done == sent.copy_pages_done);
  CHECK(got.copy_pages == sent.copy_pages);
  CHECK(got.detail == sent.detail);

  CHECK(*(*client)->LocalFiles() == source.LocalFiles());

  std::vector<ChangeSetSummary> log;
  const auto collect = [&log](const ChangeSetSummary& summary) { log.push_back(summary); };
  REQUIRE((*client)->ChangeSets("app.db", {}, collect).ok());
  REQUIRE(log.size() == 3);
  CHECK(log[2].index == LogIndex{12});
  CHECK(log[2].term == Term{3});
  CHECK(log[2].txid == Txid{3});
  CHECK(log[2].kind == "drop");
  CHECK(log[1].timestamp_ms == 1700000000123);
  CHECK(log[1].pages == 2);
  CHECK(log[1].bytes == 8400);
  CHECK(log[1].page_count == 10);
  CHECK(log[1].digest == 0xfedcba9876543210);

  const absl::Status missing = (*client)->ChangeSets("none.db", {}, collect);
  CHECK(absl::IsNotFound(missing));
  CHECK_THAT(std::string(missing.message()), HasText("none.db"));
}

TEST_CASE("admin: the socket is the user's alone, and gone with the server") {
  const test::TempDir dir;
  test::FakeAdminSource source;
  const std::string path = AdminSocketPath(dir.path());
  {
    const auto server = AdminServer::Start(path, &source);
    REQUIRE(server.ok());
    struct stat attributes {};
    REQUIRE(::stat(path.c_str(), &attributes) == 0);
    CHECK((attributes.st_mode & 07777) == 0600);
    CHECK(::access((dir.path() + "/.admin").c_str(), F_OK) != 0);
  }
  CHECK(::access(path.c_str(), F_OK) != 0);
}

TEST_CASE("admin: a stale socket is replaced, a live one is refused") {
  const test::TempDir dir;
  test::FakeAdminSource source;
  const std::string path = AdminSocketPath(dir.path());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  REQUIRE(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  ::close(fd);
  CHECK(absl::IsUnavailable(AdminClient::Connect(dir.path()).status()));

  const auto server = AdminServer::Start(path, &source);
  REQUIRE(server.ok());
  const auto second = AdminServer::Start(path, &source);
  CHECK(absl::IsAlreadyExists(second.status()));
  CHECK((*AdminClient::Connect(dir.path()))->Status().ok());
}

TEST_CASE("admin: a node that is not running is a clear error") {
  const test::TempDir dir;
  const absl::Status status = AdminClient::Connect(dir.path()).status();
  CHECK(absl::IsUnavailable(status));
  CHECK_THAT(std::string(status.message()),
             HasText("no echofs is running with the data directory " + dir.path()));
}

TEST_CASE("admin: any directory name works, and one that is too long is a clear error") {
  const test::TempDir dir;
  test::FakeAdminSource source;
  std::string name = dir.path() + "/a b%20ü#?";
  REQUIRE(::mkdir(name.c_str(), 0755) == 0);
  {
    const auto server = AdminServer::Start(AdminSocketPath(name), &source);
    INFO(server.status());
    REQUIRE(server.ok());
    CHECK((*AdminClient::Connect(name))->Status().ok());
  }
  // The longest that fits: sun_path has 108 bytes with the final NUL.
  name = dir.path() + "/" + std::string(107 - dir.path().size() - 1 - 12, 'x');
  REQUIRE(::mkdir(name.c_str(), 0755) == 0);
  {
    const auto server = AdminServer::Start(AdminSocketPath(name), &source);
    REQUIRE(server.ok());
    CHECK((*AdminClient::Connect(name))->Status().ok());
  }
  name += "x";
  REQUIRE(::mkdir(name.c_str(), 0755) == 0);
  const absl::Status status = AdminServer::Start(AdminSocketPath(name), &source).status();
  CHECK(absl::IsInvalidArgument(status));
  CHECK_THAT(std::string(status.message()), HasText("shorter path"));
}

}  // namespace
}  // namespace echofs::cmd
