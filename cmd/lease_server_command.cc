#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <memory>

#include "cmd/command_description.h"
#include "cmd/commands.h"
#include "cmd/data_directory.h"
#include "cmd/log_setup.h"
#include "cmd/service_notify.h"
#include "replication/lease_server.h"
#include "replication/status_macros.h"

namespace echofs::cmd {
namespace {

struct LeaseServerFlags {
  std::string listen;
  std::string data_dir;
  SecurityOptions security;
  Config::Log log;
};

absl::Status CheckFlags(const LeaseServerFlags& flags) {
  if (absl::StatusOr<HostPort> address = ParseHostPort(flags.listen); !address.ok()) {
    return address.status();
  }
  ECHOFS_RETURN_IF_ERROR(CheckTlsSettings(flags.security.tls, "--tls-", false));
  return CheckLogLevel(flags.log.level);
}

absl::Status Serve(const LeaseServerFlags& flags) {
  // Before there are threads: none of them is to take the signals.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  const ServiceNotify notify = ServiceNotify::FromEnvironment();
  ECHOFS_ASSIGN_OR_RETURN(const UniqueFd lock, LockDataDirectory(flags.data_dir));
  ECHOFS_ASSIGN_OR_RETURN(const std::shared_ptr<GrpcSecurity> security,
                          GrpcSecurity::Make(flags.security, TlsUse::kServer));
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<LeaseServer> server,
                          LeaseServer::Start(flags.listen, flags.data_dir + "/lease.db", security));
  spdlog::info("the lease server listens on {}, secured {}, and keeps its data in {}", flags.listen,
               DescribeSecurity(flags.security), flags.data_dir);
  notify.Ready();
  int signal = 0;
  while (sigwait(&signals, &signal) != 0) {
  }
  spdlog::info("stopping");
  notify.Stopping();
  server->Stop();
  return absl::OkStatus();
}

int RunLeaseServer(const LeaseServerFlags& flags) {
  if (const absl::Status bad = CheckFlags(flags); !bad.ok()) return FailUsage(bad);
  SetUpLogging(flags.log);
  const absl::Status status = Serve(flags);
  return status.ok() ? kExitOk : Fail(status);
}

}  // namespace

void AddLeaseServerCommand(CLI::App* app, int* exit_code) {
  CLI::App* server = app->add_subcommand(
      "lease-server", "Decide who is primary, for nodes with lease.type service");
  const auto flags = std::make_shared<LeaseServerFlags>();
  server->add_option("--listen", flags->listen, "Listen for nodes, host:port")->required();
  server->add_option("--data-dir", flags->data_dir, "Directory for what it must not forget")
      ->required()
      ->type_name(kDirectoryValue);
  server->add_option("--tls-cert", flags->security.tls.cert, "Certificate of this server (PEM)")
      ->type_name(kFileValue);
  server->add_option("--tls-key", flags->security.tls.key, "Its private key")
      ->type_name(kFileValue);
  server
      ->add_option("--tls-ca", flags->security.tls.ca,
                   "Authority that the nodes' certificates must be from")
      ->type_name(kFileValue);
  server
      ->add_option("--token-file", flags->security.token_file,
                   "File with the token that nodes must know")
      ->type_name(kFileValue);
  server->add_option("--log-level", flags->log.level, "trace, debug, info, warn or error");
  server->footer(
      "Stays in the foreground, logs to stderr, ends on SIGTERM or SIGINT. One server serves any "
      "number of clusters,\n"
      "told apart by their lease.key. It may be stopped and started at any time: nodes go on for "
      "as long as the\n"
      "lease lasts (lease.ttl), and the primary stays the primary when the server is back by "
      "then.");
  server->callback([flags, exit_code] { *exit_code = RunLeaseServer(*flags); });
}

}  // namespace echofs::cmd
