// The configuration of a node: echofs.yml (design section 11), flags over it, defaults under it.
// Nothing is ever silently ignored: an unknown key, a value of the wrong kind and a setting that
// this version does not implement are errors that name the file, the line and the key.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cmd/config_values.h"
#include "replication/grpc_security.h"
#include "replication/lease_factory.h"

namespace echofs::cmd {

enum class LogFormat { kText, kJson };

// An entry of `exec`: a command to run when the mount is ready.
struct ExecCommand {
  std::string text;                // as configured, variables expanded
  std::vector<std::string> words;  // never empty
  bool if_candidate = false;       // only on a node with lease.candidate
};

// Values of the keys of echofs.yml, named as they are there.
struct Config {
  struct Node {
    std::string id;  // default: the host name
  } node;
  struct Fuse {
    std::string dir;                  // absolute
    std::optional<bool> allow_other;  // unset: true when root mounts, false for other users
  } fuse;
  struct Data {
    std::string dir;  // absolute
    absl::Duration retention_age = absl::Hours(24);
    std::uint64_t retention_size = std::uint64_t{1} << 30;  // bytes
  } data;
  struct Grpc {
    std::string listen;  // host:port; empty: do not listen
    std::string
        advertise;  // host:port at which the other nodes reach this one; empty with `listen`
    TlsFiles tls;   // absolute paths; all of them or none
    std::string token_file;  // absolute path, or empty
  } grpc;
  struct Http {
    std::string listen = "127.0.0.1:20203";  // host:port, port 0: any; empty: do not listen
  } http;
  struct Lease {
    LeaseType type = LeaseType::kStatic;
    bool candidate = true;
    absl::Duration ttl = absl::Seconds(10);
    std::vector<std::string>
        endpoints;  // host:port of lease servers or of etcd; empty with kStatic
    std::string key = "echofs";
    std::string primary;  // kStatic: grpc.advertise of the primary; empty: a primary on its own
    // Absolute paths. kService: as grpc.tls unless set; kEtcd: plain text unless set, `ca` alone will do.
    TlsFiles tls;
  } lease;
  struct Replication {
    int min_sync_replicas = 0;
    bool sync_always = false;  // every commit waits, not only those that are synced
    absl::Duration ack_timeout = absl::Seconds(5);
    absl::Duration reader_timeout = absl::Seconds(30);  // zero: no limit
  } replication;
  std::vector<ExecCommand> exec;
  struct Log {
    std::string level = "info";  // trace, debug, info, warn, error
    LogFormat format = LogFormat::kText;
  } log;

  // Whether this node is the primary by configuration. Other leases than the static one decide while it runs.
  bool IsPrimary() const {
    return lease.type == LeaseType::kStatic &&
           (lease.primary.empty() || lease.primary == grpc.advertise);
  }
};

// What the command line says; an unset flag leaves the file's value.
struct ConfigFlags {
  std::string config_file;  // empty: no file
  std::optional<std::string> fuse_dir;
  std::optional<std::string> data_dir;
  std::optional<std::string> grpc_listen;
  std::optional<std::string> grpc_advertise;
  std::optional<std::string> http_listen;
  std::optional<std::string> lease_primary;
  std::optional<std::string> node_id;
  std::optional<std::string> log_level;
  bool allow_other = false;  // true: said
};

// Reads the text of an echofs.yml. `name` stands before the line number in errors. Fills in no
// default that depends on the machine or on another key, and does not ask for keys that are
// missing.
absl::StatusOr<Config> ParseConfig(std::string_view text, const std::string& name,
                                   const Environment& environment);

// File, flags and defaults, checked as a whole: what `echofs mount` runs with.
absl::StatusOr<Config> LoadConfig(const ConfigFlags& flags, const Environment& environment);

// For the commands that talk to a running node: where its data directory is, from --data-dir or
// from the file.
absl::StatusOr<std::string> FindDataDir(const ConfigFlags& flags, const Environment& environment);

// What the node's own port and its calls of other nodes use, and its calls of the lease service (not with kStatic), where it
// is a client.
SecurityOptions NodeSecurity(const Config& config);
SecurityOptions LeaseSecurity(const Config& config);

// InvalidArgument unless certificate, key and authority are all there or all missing. `setting` is what the message
// calls them, such as "grpc.tls."; with `ca_alone` an authority by itself will do.
absl::Status CheckTlsSettings(const TlsFiles& files, std::string_view setting, bool ca_alone);

// Socket of the node with this data directory.
std::string AdminSocketPath(const std::string& data_dir);

// Checks of single values that flags share with the file. InvalidArgument says what was expected.
// The value of http.listen: host:port, or empty for "off".
absl::StatusOr<std::string> ParseHttpListen(std::string_view text);
absl::Status CheckNodeId(std::string_view id);
absl::Status CheckLogLevel(std::string_view level);

}  // namespace echofs::cmd
