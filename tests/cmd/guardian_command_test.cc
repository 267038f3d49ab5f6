// What the guardian runs when the mount is ready: steps and the command. Needs root and /dev/fuse.
#include <csignal>

#include "tests/cmd/guardian_node.h"

namespace echofs::cmd {
namespace {

using test::HasText;
using test::IsMounted;
using test::ReadFile;
using test::WaitFor;
using Node = test::GuardianNode;

TEST_CASE("guardian: the command runs when the mount is ready, and its exit code is ours") {
  Node node;
  node.options().command = {"sh", "-c", "cat '" + node.mount_point() + "/hello'; exit 7"};
  node.Start();
  CHECK(node.WaitForEnd() == 7);
  CHECK(node.log() == "hello\n");
  CHECK_FALSE(IsMounted(node.mount_point()));
}

TEST_CASE("guardian: a command that cannot be started ends the node") {
  Node node;
  node.options().command = {"/no/such/program"};
  node.Start();
  CHECK(node.WaitForEnd() == 127);
  CHECK_THAT(node.log(), HasText("cannot run the command"));
  CHECK_FALSE(IsMounted(node.mount_point()));
}

TEST_CASE("guardian: steps run in order, each to its end, and then the command") {
  Node node;
  node.options().steps = {{"sh", "-c", "sleep 0.05; echo 1"}, {"sh", "-c", "echo 2"}};
  node.options().command = {"sh", "-c", "cat '" + node.mount_point() + "/hello'; exit 7"};
  node.Start();
  CHECK(node.WaitForEnd() == 7);
  CHECK(node.log() == "1\n2\nhello\n");
}

TEST_CASE("guardian: a step that fails ends the node with its exit code") {
  Node node;
  node.options().steps = {{"sh", "-c", "exit 3"}, {"sh", "-c", "echo never"}};
  node.options().command = {"sh", "-c", "echo never"};
  node.Start();
  CHECK(node.WaitForEnd() == 3);
  CHECK_THAT(node.log(), HasText("the command sh of exec ended with exit code 3"));
  CHECK_THAT(node.log(), !HasText("never"));
  CHECK_FALSE(IsMounted(node.mount_point()));
}

TEST_CASE("guardian: a step that cannot be started ends the node") {
  Node node;
  node.options().steps = {{"true"}, {"/no/such/program"}};
  node.options().command = {"sh", "-c", "echo never"};
  node.Start();
  CHECK(node.WaitForEnd() == 127);
  CHECK_THAT(node.log(), HasText("cannot run the command /no/such/program"));
  CHECK_THAT(node.log(), !HasText("never"));
}

TEST_CASE("guardian: with steps alone the node goes on after them") {
  Node node;
  node.options().steps = {{"sh", "-c", ": >" + node.dir() + "/marker"}};
  node.Start();
  REQUIRE(node.WaitForMarker());
  CHECK(node.WaitUntilReady());
  ::kill(node.guardian(), SIGTERM);
  CHECK(node.WaitForEnd() == 0);
}

TEST_CASE("guardian: SIGTERM during a step ends it, and nothing else is started") {
  Node node;
  node.options().steps = {
      {"sh", "-c",
       "trap 'exit 0' TERM; : >" + node.dir() + "/marker; while :; do sleep 0.01; done"}};
  node.options().command = {"sh", "-c", "echo never"};
  node.Start();
  REQUIRE(node.WaitForMarker());
  ::kill(node.guardian(), SIGTERM);
  CHECK(node.WaitForEnd() == 0);
  CHECK_THAT(node.log(), !HasText("never"));
}

TEST_CASE("guardian: SIGTERM ends the command first, while the mount still works") {
  Node node;
  node.options().command = {"sh", "-c",
                            "trap 'cat \"" + node.mount_point() + "/hello\"; exit 5' TERM; : >" +
                                node.dir() + "/marker; while :; do sleep 0.01; done"};
  node.Start();
  REQUIRE(node.WaitForMarker());
  ::kill(node.guardian(), SIGTERM);
  CHECK(node.WaitForEnd() == 5);
  CHECK(node.log() == "hello\n");
}

TEST_CASE("guardian: a command that ignores SIGTERM is killed after its time") {
  Node node;
  node.options().command_grace = std::chrono::milliseconds(100);
  node.options().command = {
      "sh", "-c", "trap '' TERM; : >" + node.dir() + "/marker; while :; do sleep 0.01; done"};
  node.Start();
  REQUIRE(node.WaitForMarker());
  ::kill(node.guardian(), SIGTERM);
  CHECK(node.WaitForEnd() == 128 + SIGKILL);
  CHECK_THAT(node.log(), HasText("it is killed"));
}

TEST_CASE("guardian: the command is ended when the daemon or the guardian dies") {
  for (const bool kill_guardian : {false, true}) {
    Node node;
    node.options().command = {"sh", "-c",
                              "echo $$ >" + node.dir() + "/pid; : >" + node.dir() +
                                  "/marker; while :; do sleep 0.01; done"};
    node.Start();
    REQUIRE(node.WaitForMarker());
    const int command = std::stoi(ReadFile(node.dir() + "/pid"));
    ::kill(kill_guardian ? node.guardian() : node.daemon_pid(), SIGKILL);
    CHECK(node.WaitForEnd() == 128 + SIGKILL);
    CHECK(WaitFor([&] { return !test::IsAlive(command); }));
  }
}

}  // namespace
}  // namespace echofs::cmd
