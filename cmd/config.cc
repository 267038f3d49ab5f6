#include "cmd/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "replication/limits.h"
#include "replication/status_macros.h"

namespace echofs::cmd {
namespace {

constexpr std::size_t kConfigSizeMax = 1 << 20;  // bytes
constexpr std::size_t kNodeIdSizeMax = 255;      // bytes
constexpr absl::Duration kServiceTtlMin = absl::Seconds(1);
constexpr absl::Duration kEtcdTtlMin = absl::Seconds(2);

absl::StatusOr<Config> ReadConfigFile(const std::string& path, const Environment& environment) {
  const auto fail = [&path](std::string_view why) {
    return absl::InvalidArgumentError(
        fmt::format("cannot read the configuration file {}: {}", path, why));
  };
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(std::strerror(errno));
  std::string text(kConfigSizeMax + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad()) return fail(std::strerror(errno));
  text.resize(static_cast<std::size_t>(file.gcount()));
  if (text.size() > kConfigSizeMax) return fail("it is larger than 1 MiB");
  return ParseConfig(text, path, environment);
}

absl::StatusOr<Config> ReadFileOrDefaults(const ConfigFlags& flags,
                                          const Environment& environment) {
  if (flags.config_file.empty()) return Config{};
  return ReadConfigFile(flags.config_file, environment);
}

absl::Status BadFlag(std::string_view flag, const absl::Status& status) {
  return absl::InvalidArgumentError(fmt::format("{}: {}", flag, std::string(status.message())));
}

absl::Status ApplyAddress(std::string_view flag, const std::optional<std::string>& value,
                          std::string* field) {
  if (!value) return absl::OkStatus();
  const absl::StatusOr<HostPort> address = ParseHostPort(*value);
  if (!address.ok()) return BadFlag(flag, address.status());
  *field = address->ToString();
  return absl::OkStatus();
}

absl::Status ApplyFlags(const ConfigFlags& flags, Config* config) {
  if (flags.fuse_dir) config->fuse.dir = *flags.fuse_dir;
  if (flags.data_dir) config->data.dir = *flags.data_dir;
  if (flags.allow_other) config->fuse.allow_other = true;
  ECHOFS_RETURN_IF_ERROR(ApplyAddress("--grpc-listen", flags.grpc_listen, &config->grpc.listen));
  ECHOFS_RETURN_IF_ERROR(
      ApplyAddress("--grpc-advertise", flags.grpc_advertise, &config->grpc.advertise));
  ECHOFS_RETURN_IF_ERROR(
      ApplyAddress("--lease-primary", flags.lease_primary, &config->lease.primary));
  if (flags.http_listen) {
    absl::StatusOr<std::string> address = ParseHttpListen(*flags.http_listen);
    if (!address.ok()) return BadFlag("--http-listen", address.status());
    config->http.listen = *std::move(address);
  }
  if (flags.node_id) {
    if (const absl::Status s = CheckNodeId(*flags.node_id); !s.ok()) return BadFlag("--node-id", s);
    config->node.id = *flags.node_id;
  }
  if (flags.log_level) {
    if (const absl::Status s = CheckLogLevel(*flags.log_level); !s.ok()) {
      return BadFlag("--log-level", s);
    }
    config->log.level = *flags.log_level;
  }
  return absl::OkStatus();
}

// Absolute, without "." and "..", without a final slash. Does not look at the file system.
std::string AbsolutePath(const std::string& path) {
  std::string absolute = std::filesystem::absolute(path).lexically_normal();
  if (absolute.size() > 1 && absolute.back() == '/') absolute.pop_back();
  return absolute;
}

// True when `inner` is `outer` or lies below it. Both absolute.
bool IsWithin(const std::string& inner, const std::string& outer) {
  return inner == outer || inner.compare(0, outer.size() + 1, outer + "/") == 0;
}

absl::Status FillDefaults(const Environment& environment, Config* config) {
  if (config->node.id.empty()) config->node.id = environment("HOSTNAME").value_or(HostName());
  if (const absl::Status s = CheckNodeId(config->node.id); !s.ok()) return BadFlag("node.id", s);
  if (!config->fuse.dir.empty()) config->fuse.dir = AbsolutePath(config->fuse.dir);
  for (std::string* path : {&config->data.dir, &config->grpc.tls.cert, &config->grpc.tls.key,
                            &config->grpc.tls.ca, &config->grpc.token_file, &config->lease.tls.cert,
                            &config->lease.tls.key, &config->lease.tls.ca}) {
    if (!path->empty()) *path = AbsolutePath(*path);
  }
  if (!config->grpc.listen.empty() && config->grpc.advertise.empty()) {
    ECHOFS_ASSIGN_OR_RETURN(HostPort address, ParseHostPort(config->grpc.listen));
    if (address.IsAnyAddress()) address.host = environment("HOSTNAME").value_or(HostName());
    config->grpc.advertise = address.ToString();
  }
  return absl::OkStatus();
}

absl::Status CheckReplication(const Config& config) {
  if (config.replication.min_sync_replicas > 0 && config.lease.type == LeaseType::kStatic) {
    return absl::InvalidArgumentError(
        "replication.min-sync-replicas is above 0, but lease.type is static: which nodes have "
        "every acknowledged "
        "commit is kept beside the lease, so set lease.type to etcd or service");
  }
  if (config.replication.min_sync_replicas == 0 && config.replication.sync_always) {
    return absl::InvalidArgumentError(
        "replication.sync is always, but replication.min-sync-replicas is 0, so no commit waits: "
        "set it to how many "
        "replicas shall have a commit before it returns, or remove replication.sync");
  }
  return absl::OkStatus();
}

absl::Status CheckStaticLease(const Config& config) {
  if (!config.lease.endpoints.empty()) {
    return absl::InvalidArgumentError(
        "lease.endpoints is set but lease.type is static, which asks nobody: set lease.type to "
        "service or etcd, or remove lease.endpoints");
  }
  if (!config.grpc.listen.empty() && config.lease.primary.empty()) {
    return absl::InvalidArgumentError(fmt::format(
        "grpc.listen is set, so this node belongs to a cluster, but nothing says which node "
        "is its primary: set lease.primary (--lease-primary) to the primary's "
        "grpc.advertise; this node's is {}",
        config.grpc.advertise));
  }
  if (!config.lease.primary.empty() && config.IsPrimary() && !config.lease.candidate) {
    return absl::InvalidArgumentError(
        "lease.primary names this node, but lease.candidate is false: one of the two must change");
  }
  return absl::OkStatus();
}

absl::Status CheckLease(const Config& config) {
  if (config.lease.type == LeaseType::kStatic) return CheckStaticLease(config);
  const char* const type = LeaseTypeName(config.lease.type);
  if (!config.lease.primary.empty()) {
    return absl::InvalidArgumentError(
        fmt::format("lease.primary is set but lease.type is {}, which decides who is the primary: "
                    "remove lease.primary, or set lease.type to static",
                    type));
  }
  if (config.lease.endpoints.empty()) {
    return absl::InvalidArgumentError(fmt::format(
        "lease.type is {} but lease.endpoints is empty: name the host:port of {}", type,
        config.lease.type == LeaseType::kService ? "the lease server" : "each member of etcd"));
  }
  if (config.grpc.listen.empty()) {
    return absl::InvalidArgumentError(fmt::format(
        "lease.type is {} but grpc.listen is not set: other nodes could not reach this one", type));
  }
  const absl::Duration shortest =
      config.lease.type == LeaseType::kEtcd ? kEtcdTtlMin : kServiceTtlMin;
  if (config.lease.ttl < shortest || config.lease.ttl > kLeaseTtlMax) {
    return absl::InvalidArgumentError(
        fmt::format("lease.ttl is {}; with lease.type {} it must be from {} to {}",
                    absl::FormatDuration(config.lease.ttl), type, absl::FormatDuration(shortest),
                    absl::FormatDuration(kLeaseTtlMax)));
  }
  return absl::OkStatus();
}

// Both would want one port; the second one could only say that it is taken.
absl::Status CheckPorts(const Config& config) {
  if (config.grpc.listen.empty() || config.http.listen.empty()) return absl::OkStatus();
  ECHOFS_ASSIGN_OR_RETURN(const HostPort grpc, ParseHostPort(config.grpc.listen));
  ECHOFS_ASSIGN_OR_RETURN(const HostPort http, ParseHostPort(config.http.listen, 0));
  if (grpc.port != http.port ||
      (grpc.host != http.host && !grpc.IsAnyAddress() && !http.IsAnyAddress())) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(fmt::format(
      "grpc.listen is {} and http.listen is {}, which is the same port: set one of them to another "
      "port, or http.listen (--http-listen) to off",
      config.grpc.listen, config.http.listen));
}

absl::Status CheckSecuritySettings(const Config& config) {
  ECHOFS_RETURN_IF_ERROR(CheckTlsSettings(config.grpc.tls, "grpc.tls.", false));
  ECHOFS_RETURN_IF_ERROR(
      CheckTlsSettings(config.lease.tls, "lease.tls.", config.lease.type == LeaseType::kEtcd));
  const bool secured = !config.grpc.tls.empty() || !config.grpc.token_file.empty();
  if (secured && config.grpc.listen.empty()) {
    return absl::InvalidArgumentError(fmt::format(
        "{} is set but grpc.listen is not, so there is nothing to secure: set grpc.listen too",
        config.grpc.tls.empty() ? "grpc.token-file" : "grpc.tls"));
  }
  if (!config.lease.tls.empty() && config.lease.type == LeaseType::kStatic) {
    return absl::InvalidArgumentError(
        "lease.tls is set but lease.type is static, which asks nobody: set lease.type to service "
        "or etcd, or remove lease.tls");
  }
  return absl::OkStatus();
}

absl::Status CheckWhole(const Config& config) {
  if (config.fuse.dir.empty()) {
    return absl::InvalidArgumentError(
        "no mount directory: give --fuse-dir DIR, or fuse.dir in the file named by --config");
  }
  if (config.data.dir.empty()) {
    return absl::InvalidArgumentError(
        "no data directory: give --data-dir DIR, or data.dir in the file named by --config");
  }
  if (IsWithin(config.data.dir, config.fuse.dir) || IsWithin(config.fuse.dir, config.data.dir)) {
    return absl::InvalidArgumentError(
        fmt::format("data.dir {} and fuse.dir {} overlap: echofs would wait for itself; use two "
                    "directories, none below the other",
                    config.data.dir, config.fuse.dir));
  }
  if (!config.grpc.advertise.empty() && config.grpc.listen.empty()) {
    return absl::InvalidArgumentError(
        "grpc.advertise is set but grpc.listen is not: other nodes could not reach this one; set "
        "grpc.listen too");
  }
  ECHOFS_RETURN_IF_ERROR(CheckPorts(config));
  ECHOFS_RETURN_IF_ERROR(CheckSecuritySettings(config));
  ECHOFS_RETURN_IF_ERROR(CheckReplication(config));
  return CheckLease(config);
}

}  // namespace

absl::Status CheckNodeId(std::string_view id) {
  const bool printable =
      std::all_of(id.begin(), id.end(), [](unsigned char c) { return c > ' ' && c != 0x7f; });
  if (!id.empty() && id.size() <= kNodeIdSizeMax && printable) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("'{}' is not a node name; expected 1 to {} printable characters without spaces",
                  id, kNodeIdSizeMax));
}

absl::StatusOr<std::string> ParseHttpListen(std::string_view text) {
  if (text.empty() || text == "off") return "";
  const absl::StatusOr<HostPort> address = ParseHostPort(text, 0);
  if (address.ok()) return address->ToString();
  return absl::InvalidArgumentError(
      fmt::format("{}; 'off' does without", std::string(address.status().message())));
}

absl::Status CheckLogLevel(std::string_view level) {
  static constexpr std::array<std::string_view, 5> kLevels = {"trace", "debug", "info", "warn",
                                                              "error"};
  if (std::find(kLevels.begin(), kLevels.end(), level) != kLevels.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("'{}' is not one of trace, debug, info, warn, error", level));
}

absl::Status CheckTlsSettings(const TlsFiles& files, std::string_view setting, bool ca_alone) {
  if (files.empty()) return absl::OkStatus();
  if (!files.ca.empty() && files.cert.empty() && files.key.empty() && ca_alone) {
    return absl::OkStatus();
  }
  std::vector<std::string> missing;
  if (files.cert.empty()) missing.push_back(fmt::format("{}cert", setting));
  if (files.key.empty()) missing.push_back(fmt::format("{}key", setting));
  if (files.ca.empty()) missing.push_back(fmt::format("{}ca", setting));
  if (missing.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format(
      "{} is missing: TLS needs a certificate, its private key and the authority that the other "
      "side's certificate must be from",
      fmt::join(missing, " and ")));
}

SecurityOptions NodeSecurity(const Config& config) {
  return {config.grpc.tls, config.grpc.token_file};
}

SecurityOptions LeaseSecurity(const Config& config) {
  if (config.lease.type == LeaseType::kEtcd) return {config.lease.tls, ""};
  return {config.lease.tls.empty() ? config.grpc.tls : config.lease.tls, config.grpc.token_file};
}

absl::StatusOr<Config> LoadConfig(const ConfigFlags& flags, const Environment& environment) {
  ECHOFS_ASSIGN_OR_RETURN(Config config, ReadFileOrDefaults(flags, environment));
  ECHOFS_RETURN_IF_ERROR(ApplyFlags(flags, &config));
  ECHOFS_RETURN_IF_ERROR(FillDefaults(environment, &config));
  ECHOFS_RETURN_IF_ERROR(CheckWhole(config));
  return config;
}

absl::StatusOr<std::string> FindDataDir(const ConfigFlags& flags, const Environment& environment) {
  if (flags.data_dir) return AbsolutePath(*flags.data_dir);
  ECHOFS_ASSIGN_OR_RETURN(const Config config, ReadFileOrDefaults(flags, environment));
  if (config.data.dir.empty()) {
    return absl::InvalidArgumentError(
        "which node? Give --data-dir DIR, or --config FILE with data.dir in it");
  }
  return AbsolutePath(config.data.dir);
}

std::string AdminSocketPath(const std::string& data_dir) { return data_dir + "/echofs.sock"; }

}  // namespace echofs::cmd
