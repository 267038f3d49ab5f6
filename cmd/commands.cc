#include "cmd/commands.h"

#include <CLI/CLI.hpp>
#include <cstdio>

#include "cmd/command_description.h"

namespace echofs::cmd {
namespace {

int Say(const absl::Status& status, int exit_code) {
  std::fprintf(stderr, "echofs: %s\n", std::string(status.message()).c_str());
  return exit_code;
}

}  // namespace

void AddNodeOptions(CLI::App* command, ConfigFlags* flags) {
  command->add_option("--config", flags->config_file, "Configuration file (echofs.yml)")
      ->type_name(kFileValue);
  command->add_option("--data-dir", flags->data_dir, "Data directory of the node")
      ->type_name(kDirectoryValue);
}

void AddConfigOptions(CLI::App* command, ConfigFlags* flags) {
  AddNodeOptions(command, flags);
  command->add_option("--fuse-dir", flags->fuse_dir, "Directory to mount on")
      ->type_name(kDirectoryValue);
  command->add_option("--grpc-listen", flags->grpc_listen, "Listen for other nodes, host:port");
  command->add_option("--grpc-advertise", flags->grpc_advertise,
                      "Where other nodes reach this one, host:port (default: as --grpc-listen)");
  command->add_option("--http-listen", flags->http_listen,
                      "Metrics, health and events over HTTP, host:port or off (default: "
                      "127.0.0.1:20203)");
  command->add_option(
      "--lease-primary", flags->lease_primary,
      "The primary's --grpc-advertise; the node where both are equal is the primary");
  command->add_option("--node-id", flags->node_id, "Name of this node (default: the host name)");
  command->add_flag("--allow-other", flags->allow_other, "Let other users into the mount");
  command->add_option("--log-level", flags->log_level, "trace, debug, info, warn or error");
}

int Fail(const absl::Status& status) { return Say(status, kExitFailure); }
int FailUsage(const absl::Status& status) { return Say(status, kExitUsage); }

}  // namespace echofs::cmd
