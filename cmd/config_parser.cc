// The text of echofs.yml -> Config. One table lists every key with the function that takes its
// value.
#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <functional>
#include <set>

#include "cmd/command_words.h"
#include "cmd/config.h"
#include "replication/limits.h"
#include "replication/status_macros.h"

namespace echofs::cmd {
namespace {

// Takes the expanded text of a value; its error is what is wrong with the value.
using Setter = std::function<absl::Status(Config*, const std::string&)>;

struct Key {
  std::string name;
  Setter set;
};

Setter SetText(std::string& (*field)(Config*)) {
  return [field](Config* config, const std::string& text) {
    field(config) = text;
    return absl::OkStatus();
  };
}

Setter SetHostPort(std::string& (*field)(Config*)) {
  return [field](Config* config, const std::string& text) -> absl::Status {
    if (text.empty()) return absl::OkStatus();
    ECHOFS_ASSIGN_OR_RETURN(const HostPort address, ParseHostPort(text));
    field(config) = address.ToString();
    return absl::OkStatus();
  };
}

Setter SetDuration(absl::Duration& (*field)(Config*), bool zero_allowed) {
  return [field, zero_allowed](Config* config, const std::string& text) -> absl::Status {
    ECHOFS_ASSIGN_OR_RETURN(const absl::Duration value, ParseDuration(text));
    if (value == absl::ZeroDuration() && !zero_allowed) {
      return absl::InvalidArgumentError("expected a duration longer than zero");
    }
    field(config) = value;
    return absl::OkStatus();
  };
}

absl::Status SetLeaseType(Config* config, const std::string& text) {
  for (const LeaseType type : {LeaseType::kStatic, LeaseType::kService, LeaseType::kEtcd}) {
    if (text != LeaseTypeName(type)) continue;
    config->lease.type = type;
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      fmt::format("'{}' is not a lease type; expected static, service or etcd", text));
}

absl::Status AddLeaseEndpoint(Config* config, const std::string& text) {
  if (config->lease.endpoints.size() >= kLeaseEndpointsMax) {
    return absl::InvalidArgumentError(
        fmt::format("there are more than {} endpoints", kLeaseEndpointsMax));
  }
  ECHOFS_ASSIGN_OR_RETURN(const HostPort address, ParseHostPort(text));
  config->lease.endpoints.push_back(address.ToString());
  return absl::OkStatus();
}

absl::Status SetLeaseKey(Config* config, const std::string& text) {
  const bool printable =
      std::all_of(text.begin(), text.end(), [](unsigned char c) { return c > ' ' && c != 0x7f; });
  if (text.empty() || text.size() > kIdentitySizeMax || !printable || text.back() == '/') {
    return absl::InvalidArgumentError(
        fmt::format("'{}' is not a key; expected 1 to {} printable characters without spaces and "
                    "without a slash at the end",
                    text, kIdentitySizeMax));
  }
  config->lease.key = text;
  return absl::OkStatus();
}

absl::Status SetSync(Config* config, const std::string& text) {
  if (text != "fsync" && text != "always") {
    return absl::InvalidArgumentError(fmt::format("'{}' is not one of fsync, always", text));
  }
  config->replication.sync_always = text == "always";
  return absl::OkStatus();
}

absl::Status SetMinSyncReplicas(Config* config, const std::string& text) {
  ECHOFS_ASSIGN_OR_RETURN(const std::uint32_t count, ParseNumber(text));
  if (count > kMinSyncReplicasMax) {
    return absl::InvalidArgumentError(fmt::format(
        "{} is too many, at most {} replicas can be waited for", count, kMinSyncReplicasMax));
  }
  config->replication.min_sync_replicas = static_cast<int>(count);
  return absl::OkStatus();
}

absl::Status SetHttpListen(Config* config, const std::string& text) {
  ECHOFS_ASSIGN_OR_RETURN(config->http.listen, ParseHttpListen(text));
  return absl::OkStatus();
}

absl::Status SetLogFormat(Config* config, const std::string& text) {
  if (text != "text" && text != "json") {
    return absl::InvalidArgumentError(fmt::format("'{}' is not one of text, json", text));
  }
  config->log.format = text == "json" ? LogFormat::kJson : LogFormat::kText;
  return absl::OkStatus();
}

absl::Status SetRetentionSize(Config* config, const std::string& text) {
  ECHOFS_ASSIGN_OR_RETURN(config->data.retention_size, ParseSize(text));
  return absl::OkStatus();
}

absl::Status SetAllowOther(Config* config, const std::string& text) {
  ECHOFS_ASSIGN_OR_RETURN(config->fuse.allow_other, ParseBool(text));
  return absl::OkStatus();
}

absl::Status SetCandidate(Config* config, const std::string& text) {
  ECHOFS_ASSIGN_OR_RETURN(config->lease.candidate, ParseBool(text));
  return absl::OkStatus();
}

absl::Status SetNodeId(Config* config, const std::string& text) {
  config->node.id = text;
  return text.empty() ? absl::OkStatus() : CheckNodeId(text);
}

absl::Status SetLogLevel(Config* config, const std::string& text) {
  config->log.level = text;
  return CheckLogLevel(text);
}

const std::vector<Key>& Keys() {
  using C = Config;
  static const std::vector<Key> keys = {
      {"node.id", SetNodeId},
      {"fuse.dir", SetText([](C* c) -> std::string& { return c->fuse.dir; })},
      {"fuse.allow-other", SetAllowOther},
      {"data.dir", SetText([](C* c) -> std::string& { return c->data.dir; })},
      {"data.retention.age",
       SetDuration([](C* c) -> absl::Duration& { return c->data.retention_age; }, false)},
      {"data.retention.size", SetRetentionSize},
      {"grpc.listen", SetHostPort([](C* c) -> std::string& { return c->grpc.listen; })},
      {"grpc.advertise", SetHostPort([](C* c) -> std::string& { return c->grpc.advertise; })},
      {"grpc.tls.cert", SetText([](C* c) -> std::string& { return c->grpc.tls.cert; })},
      {"grpc.tls.key", SetText([](C* c) -> std::string& { return c->grpc.tls.key; })},
      {"grpc.tls.ca", SetText([](C* c) -> std::string& { return c->grpc.tls.ca; })},
      {"grpc.token-file", SetText([](C* c) -> std::string& { return c->grpc.token_file; })},
      {"http.listen", SetHttpListen},
      {"lease.type", SetLeaseType},
      {"lease.candidate", SetCandidate},
      {"lease.ttl", SetDuration([](C* c) -> absl::Duration& { return c->lease.ttl; }, false)},
      {"lease.endpoints", AddLeaseEndpoint},
      {"lease.key", SetLeaseKey},
      {"lease.tls.cert", SetText([](C* c) -> std::string& { return c->lease.tls.cert; })},
      {"lease.tls.key", SetText([](C* c) -> std::string& { return c->lease.tls.key; })},
      {"lease.tls.ca", SetText([](C* c) -> std::string& { return c->lease.tls.ca; })},
      {"lease.primary", SetHostPort([](C* c) -> std::string& { return c->lease.primary; })},
      {"replication.min-sync-replicas", SetMinSyncReplicas},
      {"replication.sync", SetSync},
      {"replication.ack-timeout",
       SetDuration([](C* c) -> absl::Duration& { return c->replication.ack_timeout; }, false)},
      {"replication.reader-timeout",
       SetDuration([](C* c) -> absl::Duration& { return c->replication.reader_timeout; }, true)},
      {"exec", nullptr},  // Parser::TakeExec
      {"log.level", SetLogLevel},
      {"log.format", SetLogFormat},
  };
  return keys;
}

// Walks the document and fills one Config. Throws what yaml-cpp throws.
class Parser {
 public:
  Parser(const std::string& name, const Environment& environment)
      : name_(name), environment_(environment) {}

  // `prefix` is the dotted name of the mapping with a final dot, or empty.
  absl::Status TakeMapping(const YAML::Node& mapping, const std::string& prefix) {
    for (const auto& item : mapping) {
      if (!item.first.IsScalar()) return Error(item.first, "expected the name of a key");
      const std::string key = prefix + item.first.Scalar();
      if (!seen_.insert(key).second) return Error(item.first, fmt::format("{} is set twice", key));
      ECHOFS_RETURN_IF_ERROR(TakeItem(key, item.first, item.second));
    }
    return absl::OkStatus();
  }

  absl::Status Error(const YAML::Node& node, const std::string& what) const {
    return absl::InvalidArgumentError(fmt::format("{}:{}: {}", name_, node.Mark().line + 1, what));
  }

  Config&& TakeConfig() { return std::move(config_); }

 private:
  absl::Status TakeItem(const std::string& key, const YAML::Node& name, const YAML::Node& value) {
    std::vector<std::string> known;
    for (const Key& candidate : Keys()) {
      if (candidate.name == key) return TakeValue(candidate, name, value);
      if (candidate.name.compare(0, key.size() + 1, key + ".") == 0) {
        if (value.IsNull()) return absl::OkStatus();
        if (!value.IsMap()) return Error(name, fmt::format("{}: expected a mapping of keys", key));
        return TakeMapping(value, key + ".");
      }
      known.push_back(candidate.name);
    }
    return Error(name, fmt::format("unknown key {}; the nearest known key is {}", key,
                                   NearestName(key, known)));
  }

  // An empty value leaves the default.
  absl::Status TakeValue(const Key& key, const YAML::Node& name, const YAML::Node& value) {
    if (value.IsNull()) return absl::OkStatus();
    if (key.name == "exec") return TakeExec(name, value);
    absl::Status status;
    if (key.name == "lease.endpoints" && value.IsSequence()) {
      for (const YAML::Node& item : value) ECHOFS_RETURN_IF_ERROR(TakeValue(key, name, item));
    } else if (!value.IsScalar()) {
      return Error(name, fmt::format("{}: expected a single value, found a {}", key.name,
                                     value.IsMap() ? "mapping" : "list"));
    } else {
      const absl::StatusOr<std::string> text = ExpandVariables(value.Scalar(), environment_);
      status = text.ok() ? key.set(&config_, *text) : text.status();
    }
    if (status.ok()) return status;
    return Error(name, fmt::format("{}: {}", key.name, std::string(status.message())));
  }

  absl::Status TakeExec(const YAML::Node& name, const YAML::Node& list) {
    if (!list.IsSequence()) {
      return Error(name, "exec: expected a list, such as [ { cmd: \"app --port 80\" } ]");
    }
    for (const YAML::Node& item : list) ECHOFS_RETURN_IF_ERROR(TakeExecCommand(item));
    return absl::OkStatus();
  }

  absl::Status TakeExecCommand(const YAML::Node& entry) {
    if (!entry.IsMap()) {
      return Error(entry, "exec: expected mappings with the keys cmd and if-candidate");
    }
    ExecCommand command;
    std::set<std::string> seen;
    for (const auto& item : entry) {
      const std::string key = item.first.IsScalar() ? item.first.Scalar() : "";
      if (!seen.insert(key).second)
        return Error(item.first, fmt::format("exec: {} is set twice", key));
      if (const absl::Status status = TakeExecKey(key, item.second, &command); !status.ok()) {
        return Error(item.first, fmt::format("exec: {}", std::string(status.message())));
      }
    }
    if (command.words.empty()) return Error(entry, "exec: an entry has no cmd, the command to run");
    config_.exec.push_back(std::move(command));
    return absl::OkStatus();
  }

  absl::Status TakeExecKey(const std::string& key, const YAML::Node& value, ExecCommand* command) {
    if (key != "cmd" && key != "if-candidate") {
      return absl::InvalidArgumentError(
          fmt::format("unknown key {}; the keys of an entry are cmd and if-candidate", key));
    }
    if (value.IsNull()) return absl::OkStatus();
    if (!value.IsScalar()) {
      return absl::InvalidArgumentError(fmt::format("{}: expected a single value", key));
    }
    absl::Status status = TakeExecValue(key, value.Scalar(), command);
    if (status.ok()) return status;
    return absl::InvalidArgumentError(fmt::format("{}: {}", key, std::string(status.message())));
  }

  absl::Status TakeExecValue(const std::string& key, const std::string& value,
                             ExecCommand* command) {
    ECHOFS_ASSIGN_OR_RETURN(const std::string text, ExpandVariables(value, environment_));
    if (key == "cmd") {
      command->text = text;
      ECHOFS_ASSIGN_OR_RETURN(command->words, SplitWords(text));
    } else {
      ECHOFS_ASSIGN_OR_RETURN(command->if_candidate, ParseBool(text));
    }
    return absl::OkStatus();
  }

  const std::string& name_;
  const Environment& environment_;
  std::set<std::string> seen_;
  Config config_;
};

}  // namespace

absl::StatusOr<Config> ParseConfig(std::string_view text, const std::string& name,
                                   const Environment& environment) {
  try {
    const YAML::Node root = YAML::Load(std::string(text));
    Parser parser(name, environment);
    if (!root.IsNull()) {
      if (!root.IsMap()) {
        return parser.Error(root, "expected a mapping of keys, such as 'data: { dir: ... }'");
      }
      ECHOFS_RETURN_IF_ERROR(parser.TakeMapping(root, ""));
    }
    return parser.TakeConfig();
  } catch (const YAML::Exception& e) {
    return absl::InvalidArgumentError(
        fmt::format("{}:{}: not valid YAML: {}", name, e.mark.line + 1, e.msg));
  }
}

}  // namespace echofs::cmd
