#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "cmd/commands.h"
#include "replication/status_macros.h"

namespace echofs::cmd {
namespace {

// Looks at the files that secure connections; what is to be said of them although they can be used.
absl::StatusOr<std::vector<std::string>> CheckFiles(const Config& config) {
  std::vector<std::string> notes;
  ECHOFS_ASSIGN_OR_RETURN(const std::string node,
                          CheckSecurity(NodeSecurity(config), TlsUse::kNode));
  if (!node.empty()) notes.push_back(node);
  if (config.lease.type == LeaseType::kStatic) return notes;
  ECHOFS_ASSIGN_OR_RETURN(const std::string lease,
                          CheckSecurity(LeaseSecurity(config), TlsUse::kClient));
  if (!lease.empty() && lease != node) notes.push_back(lease);
  return notes;
}

int Check(const ConfigFlags& flags) {
  const absl::StatusOr<Config> config = LoadConfig(flags, ProcessEnvironment);
  if (!config.ok()) return FailUsage(config.status());
  const absl::StatusOr<std::vector<std::string>> notes = CheckFiles(*config);
  if (!notes.ok()) return FailUsage(notes.status());
  std::printf("the configuration is valid\n");
  std::printf("node      %s\n", config->node.id.c_str());
  std::printf("mount     %s\n", config->fuse.dir.c_str());
  std::printf("data      %s\n", config->data.dir.c_str());
  if (config->lease.type != LeaseType::kStatic) {
    std::printf("role      %s; the lease is asked of %s (%s), key %s\n",
                config->lease.candidate ? "candidate" : "replica",
                fmt::format("{}", fmt::join(config->lease.endpoints, ", ")).c_str(),
                LeaseTypeName(config->lease.type), config->lease.key.c_str());
    std::printf("lease     secured %s\n", DescribeSecurity(LeaseSecurity(*config)).c_str());
  } else if (config->lease.primary.empty()) {
    std::printf("role      primary on its own\n");
  } else if (config->IsPrimary()) {
    std::printf("role      primary\n");
  } else {
    std::printf("role      replica of %s\n", config->lease.primary.c_str());
  }
  if (!config->grpc.listen.empty()) {
    std::printf("listens   %s, reached at %s\n", config->grpc.listen.c_str(),
                config->grpc.advertise.c_str());
    std::printf("secured   %s\n", DescribeSecurity(NodeSecurity(*config)).c_str());
  }
  std::printf("http      %s\n", config->http.listen.empty() ? "off" : config->http.listen.c_str());
  for (const std::string& note : *notes) std::printf("warning   %s\n", note.c_str());
  for (const ExecCommand& command : config->exec) {
    const bool skipped = command.if_candidate && !config->lease.candidate;
    std::printf("%s     %s%s\n", skipped ? "skips" : "runs ", command.text.c_str(),
                skipped ? " (not a candidate)" : "");
  }
  return kExitOk;
}

}  // namespace

void AddConfigCommand(CLI::App* app, int* exit_code) {
  CLI::App* config = app->add_subcommand("config", "Look at the configuration");
  config->require_subcommand(1);
  CLI::App* check =
      config->add_subcommand("check", "Say what is wrong with a configuration, or what it means");
  const auto flags = std::make_shared<ConfigFlags>();
  AddConfigOptions(check, flags.get());
  check->callback([flags, exit_code] { *exit_code = Check(*flags); });
}

}  // namespace echofs::cmd
