#include "cmd/config.h"

#include <fstream>
#include <map>

#include "tests/catch.h"
#include "tests/cmd/test_util.h"

namespace echofs::cmd {
namespace {

using test::HasText;

Environment Variables(std::map<std::string, std::string> variables) {
  return [variables = std::move(variables)](const std::string& name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    if (found == variables.end()) return std::nullopt;
    return found->second;
  };
}

const Environment kEnvironment = Variables({{"HOSTNAME", "box"}, {"DATA", "/data"}});

std::string ParseError(const std::string& text) {
  const absl::StatusOr<Config> config = ParseConfig(text, "echofs.yml", kEnvironment);
  REQUIRE_FALSE(config.ok());
  return std::string(config.status().message());
}

std::string LoadError(const ConfigFlags& flags) {
  const absl::StatusOr<Config> config = LoadConfig(flags, kEnvironment);
  REQUIRE_FALSE(config.ok());
  return std::string(config.status().message());
}

ConfigFlags Directories() {
  ConfigFlags flags;
  flags.fuse_dir = "/mnt/x";
  flags.data_dir = "/var/x";
  return flags;
}

TEST_CASE("config: every key of the sample is understood") {
  const absl::StatusOr<Config> config = ParseConfig(R"(
node:        { id: a }
fuse:        { dir: /litefs, allow-other: true }
data:        { dir: "${DATA}/echofs", retention: { age: 48h, size: 2GiB } }
grpc:        { listen: 0.0.0.0:20202, advertise: "${HOSTNAME}:20202", tls: { cert: , key: , ca: } }
http:        { listen: 127.0.0.1:20203 }        # /metrics /health /info /events
lease:       { type: static, candidate: false, ttl: 20s, endpoints: [ ], key: k, primary: "b:1" }
replication: { min-sync-replicas: 0, sync: fsync, ack-timeout: 500ms, reader-timeout: 1m }
exec:        [ { cmd: "migrate --db '${DATA}/a b'", if-candidate: true }, { cmd: app } ]
log:         { level: debug, format: json }
)",
                                                    "echofs.yml", kEnvironment);
  INFO(config.status());
  REQUIRE(config.ok());
  CHECK(config->node.id == "a");
  CHECK(config->fuse.dir == "/litefs");
  CHECK(config->fuse.allow_other == true);
  CHECK(config->data.dir == "/data/echofs");
  CHECK(config->data.retention_age == absl::Hours(48));
  CHECK(config->data.retention_size == std::uint64_t{2} << 30);
  CHECK(config->grpc.listen == "0.0.0.0:20202");
  CHECK(config->grpc.advertise == "box:20202");
  CHECK_FALSE(config->lease.candidate);
  CHECK(config->lease.ttl == absl::Seconds(20));
  CHECK(config->lease.key == "k");
  CHECK(config->lease.primary == "b:1");
  CHECK(config->replication.ack_timeout == absl::Milliseconds(500));
  CHECK(config->replication.reader_timeout == absl::Minutes(1));
  REQUIRE(config->exec.size() == 2);
  CHECK(config->exec[0].text == "migrate --db '/data/a b'");
  CHECK(config->exec[0].words == std::vector<std::string>{"migrate", "--db", "/data/a b"});
  CHECK(config->exec[0].if_candidate);
  CHECK(config->exec[1].words == std::vector<std::string>{"app"});
  CHECK_FALSE(config->exec[1].if_candidate);
  CHECK(config->log.level == "debug");
  CHECK(config->log.format == LogFormat::kJson);
  CHECK_FALSE(config->IsPrimary());
}

TEST_CASE("config: an empty file and empty values leave the defaults") {
  for (const char* text : {"", "# nothing\n", "data:\nfuse: { dir: }\n"}) {
    const absl::StatusOr<Config> config = ParseConfig(text, "echofs.yml", kEnvironment);
    REQUIRE(config.ok());
    CHECK(config->data.retention_size == std::uint64_t{1} << 30);
    CHECK(config->fuse.dir.empty());
  }
}

TEST_CASE("config: an unknown key is an error that names the line and the nearest key") {
  CHECK(ParseError("data:\n  dir: /x\ngrpc:\n  lisen: a:1\n") ==
        "echofs.yml:4: unknown key grpc.lisen; the nearest known key is grpc.listen");
  CHECK_THAT(ParseError("fuse: { allow_other: true }"), HasText("fuse.allow-other"));
  CHECK_THAT(ParseError("retention: 1h"), HasText("unknown key retention"));
  CHECK_THAT(ParseError("ttl: 1h"), HasText("nearest known key is lease.ttl"));
  CHECK_THAT(ParseError("data: { retention: { sise: 1h } }"), HasText("data.retention.size"));
}

TEST_CASE("config: a key that is set twice is an error") {
  CHECK(ParseError("log: { level: info }\nnode: { id: a,\n  id: b }\n") ==
        "echofs.yml:3: node.id is set twice");
}

TEST_CASE("config: wrong kinds of values are errors that say what was expected") {
  CHECK(ParseError("\ndata: /var") == "echofs.yml:2: data: expected a mapping of keys");
  CHECK_THAT(ParseError("node: { id: [ a ] }"), HasText("node.id: expected a single value"));
  CHECK_THAT(ParseError("fuse: { dir: { a: b } }"), HasText("found a mapping"));
  CHECK_THAT(ParseError("lease: { endpoints: a }"),
             HasText("lease.endpoints: 'a' is not an address"));
  CHECK_THAT(ParseError("lease: { endpoints: [ { a: b } ] }"), HasText("found a mapping"));
  CHECK_THAT(ParseError("exec: a"), HasText("expected a list"));
  CHECK_THAT(ParseError("- a\n- b"), HasText("expected a mapping"));
  CHECK_THAT(ParseError("a: b: c"), HasText("echofs.yml:1: not valid YAML"));
}

TEST_CASE("config: wrong values are errors that say what was expected") {
  CHECK(ParseError("fuse:\n  allow-other: yes\n") ==
        "echofs.yml:2: fuse.allow-other: 'yes' is not true or false");
  CHECK_THAT(ParseError("data: { retention: { age: 10 } }"), HasText("such as 500ms, 10s or 24h"));
  CHECK_THAT(ParseError("data: { retention: { age: -1s } }"), HasText("not a duration"));
  CHECK_THAT(ParseError("lease: { ttl: 0s }"), HasText("longer than zero"));
  CHECK_THAT(ParseError("data: { retention: { size: 1 } }"), HasText("such as 64MB or 1GiB"));
  CHECK_THAT(ParseError("grpc: { listen: 20202 }"), HasText("host:port"));
  CHECK_THAT(ParseError("grpc: { listen: \":20202\" }"), HasText("0.0.0.0:20202"));
  CHECK_THAT(ParseError("grpc: { listen: \"a:70000\" }"), HasText("host:port"));
  CHECK_THAT(ParseError("log: { level: loud }"), HasText("trace, debug, info, warn, error"));
  CHECK_THAT(ParseError("log: { format: xml }"), HasText("text, json"));
  CHECK_THAT(ParseError("lease: { type: consul }"), HasText("static, service or etcd"));
  CHECK_THAT(ParseError("lease: { endpoints: [ \"a:1\", \"b\" ] }"),
             HasText("'b' is not an address"));
  CHECK_THAT(ParseError("lease: { key: \"a b\" }"), HasText("without spaces"));
  CHECK_THAT(ParseError("lease: { key: a/ }"), HasText("without a slash at the end"));
  CHECK_THAT(ParseError("replication: { sync: never }"), HasText("fsync, always"));
  CHECK_THAT(ParseError("node: { id: \"a b\" }"), HasText("without spaces"));
}

TEST_CASE("config: mistakes in exec are errors that name the line of the entry") {
  CHECK_THAT(ParseError("exec: app"), HasText("echofs.yml:1: exec: expected a list, such as"));
  CHECK_THAT(ParseError("exec: { cmd: app }"), HasText("exec: expected a list"));
  CHECK_THAT(ParseError("exec:\n  - cmd: a\n  - app\n"),
             HasText("echofs.yml:3: exec: expected mappings with the keys cmd and if-candidate"));
  CHECK_THAT(ParseError("exec:\n  - cmd: a\n  - cmd: b\n    if-candidat: true\n"),
             HasText("echofs.yml:4: exec: unknown key if-candidat; the keys of an entry are"));
  CHECK_THAT(ParseError("exec:\n  - cmd: a\n  - if-candidate: true\n"),
             HasText("echofs.yml:3: exec: an entry has no cmd"));
  CHECK_THAT(ParseError("exec: [ { cmd: } ]"), HasText("an entry has no cmd"));
  CHECK_THAT(ParseError("exec: [ { cmd: \"\" } ]"), HasText("there is no command"));
  CHECK_THAT(ParseError("exec: [ { cmd: a, cmd: b } ]"), HasText("exec: cmd is set twice"));
  CHECK_THAT(ParseError("exec: [ { cmd: [ a, b ] } ]"), HasText("cmd: expected a single value"));
  CHECK_THAT(ParseError("exec: [ { cmd: a, if-candidate: yes } ]"),
             HasText("exec: if-candidate: 'yes' is not true or false"));
  CHECK_THAT(ParseError("exec:\n- cmd: \"a | b\"\n"),
             HasText("echofs.yml:2: exec: cmd: 'a | b': commands are run without a shell"));
  CHECK_THAT(ParseError("exec: [ { cmd: \"a 'b\" } ]"), HasText("a ' is not closed"));
  CHECK_THAT(ParseError("exec: [ { cmd: \"${NONE}\" } ]"),
             HasText("the environment variable NONE is not set"));
}

TEST_CASE("config: exec may be empty, and a variable may hold a command with its arguments") {
  for (const char* text : {"exec:", "exec: [ ]"}) {
    CHECK(ParseConfig(text, "echofs.yml", kEnvironment)->exec.empty());
  }
  const absl::StatusOr<Config> config = ParseConfig("exec: [ { cmd: \"${APP}\" } ]", "echofs.yml",
                                                    Variables({{"APP", "app --name 'x y'"}}));
  REQUIRE(config.ok());
  CHECK(config->exec[0].words == std::vector<std::string>{"app", "--name", "x y"});
}

TEST_CASE("config: http.listen is an address, any port of one, or off") {
  const auto listen = [](const char* value) {
    const absl::StatusOr<Config> config =
        ParseConfig(std::string("http: { listen: ") + value + " }", "echofs.yml", kEnvironment);
    INFO(config.status());
    REQUIRE(config.ok());
    return config->http.listen;
  };
  CHECK(listen("") == "127.0.0.1:20203");
  CHECK(listen("off") == "");
  CHECK(listen("\"\"") == "");
  CHECK(listen("\"[::1]:80\"") == "[::1]:80");
  CHECK(listen("127.0.0.1:0") == "127.0.0.1:0");
  CHECK_THAT(ParseError("http: { listen: none }"), HasText("'off' does without"));
  ConfigFlags flags = Directories();
  flags.http_listen = "off";
  CHECK(LoadConfig(flags, kEnvironment)->http.listen == "");
  flags.http_listen = "here";
  CHECK_THAT(LoadError(flags), HasText("--http-listen: 'here' is not an address"));
}

TEST_CASE("config: one port for grpc.listen and http.listen is an error") {
  ConfigFlags flags = Directories();
  flags.lease_primary = flags.grpc_advertise = "127.0.0.1:20203";
  for (const char* address : {"127.0.0.1:20203", "0.0.0.0:20203"}) {
    flags.grpc_listen = address;
    CHECK_THAT(LoadError(flags), HasText("which is the same port"));
  }
  flags.grpc_listen = "10.0.0.1:20203";
  CHECK(LoadConfig(flags, kEnvironment).ok());
}

TEST_CASE("config: commits wait only where the lease remembers who has them (D3)") {
  const std::string lease =
      "grpc: { listen: \"a:1\" }\nlease: { type: service, endpoints: \"b:1\" }\n";
  const std::string paths = "fuse: { dir: /m }\ndata: { dir: /d }\n";
  const absl::StatusOr<Config> config = ParseConfig(
      lease + "replication: { min-sync-replicas: 2, sync: always }", "echofs.yml", kEnvironment);
  REQUIRE(config.ok());
  CHECK(config->replication.min_sync_replicas == 2);
  CHECK(config->replication.sync_always);
  CHECK_THAT(ParseError("replication: { min-sync-replicas: 17 }"), HasText("too many"));
}

TEST_CASE("config: files that secure connections are named whole or not at all") {
  ConfigFlags flags = Directories();
  const test::TempDir dir;
  flags.config_file = dir.path() + "/echofs.yml";
  const auto write = [&](const std::string& text) { std::ofstream(flags.config_file) << text; };
  const std::string grpc =
      "grpc: { listen: \"a:1\", tls: { cert: /c, key: /k, ca: \"${DATA}/ca\" }";

  write(grpc + ", token-file: \"${DATA}/../token\" }\nlease: { primary: \"a:1\" }\n");
  absl::StatusOr<Config> config = LoadConfig(flags, kEnvironment);
  REQUIRE(config.ok());
  CHECK(config->grpc.tls == TlsFiles{"/c", "/k", "/data/ca"});
  CHECK(config->grpc.token_file == "/token");
  CHECK(NodeSecurity(*config).tls == config->grpc.tls);
  CHECK(NodeSecurity(*config).token_file == "/token");

  const std::string service = "lease: { type: service, endpoints: \"b:1\"";
  write(grpc + ", token-file: /t }\n" + service + " }\n");
  CHECK(LeaseSecurity(*LoadConfig(flags, kEnvironment)).tls == config->grpc.tls);
  CHECK(LeaseSecurity(*LoadConfig(flags, kEnvironment)).token_file == "/t");
  write(grpc + " }\n" + service + ", tls: { cert: /1, key: /2, ca: /3 } }\n");
  CHECK(LeaseSecurity(*LoadConfig(flags, kEnvironment)).tls == TlsFiles{"/1", "/2", "/3"});

  // etcd is another service, with its own files, and gets no token.
  const std::string etcd = "lease: { type: etcd, endpoints: \"b:1\"";
  write(grpc + ", token-file: /t }\n" + etcd + " }\n");
  CHECK(LeaseSecurity(*LoadConfig(flags, kEnvironment)).tls.empty());
  CHECK(LeaseSecurity(*LoadConfig(flags, kEnvironment)).token_file.empty());
  write(grpc + " }\n" + etcd + ", tls: { ca: /3 } }\n");
  CHECK(LeaseSecurity(*LoadConfig(flags, kEnvironment)).tls == TlsFiles{"", "", "/3"});

  write("grpc: { listen: \"a:1\", tls: { ca: /a } }\nlease: { primary: \"a:1\" }\n");
  CHECK_THAT(LoadError(flags), HasText("grpc.tls.cert and grpc.tls.key is missing"));
  write("grpc: { listen: \"a:1\" }\n" + service + ", tls: { ca: /3 } }\n");
  CHECK_THAT(LoadError(flags), HasText("lease.tls.cert and lease.tls.key is missing"));
  write("grpc: { tls: { cert: /c, key: /k, ca: /a } }\n");
  CHECK_THAT(LoadError(flags), HasText("grpc.tls is set but grpc.listen is not"));
  write("grpc: { token-file: /t }\n");
  CHECK_THAT(LoadError(flags), HasText("grpc.token-file is set but grpc.listen is not"));
  write("lease: { tls: { cert: /c, key: /k, ca: /a } }\n");
  CHECK_THAT(LoadError(flags), HasText("lease.tls is set but lease.type is static"));
}

TEST_CASE("config: variables expand, and an unset one is an error") {
  CHECK(*ExpandVariables("a${DATA}b${HOSTNAME}$c", kEnvironment) == "a/databbox$c");
  CHECK_THAT(ParseError("node:\n  id: ${NONE}"), HasText("echofs.yml:2: node.id: the environment "
                                                         "variable NONE is not set"));
  CHECK_THAT(ParseError("node: { id: \"${DATA\" }"), HasText("without its '}'"));
  CHECK_THAT(ParseError("node: { id: \"${}\" }"), HasText("does not name"));
}

TEST_CASE("config: HOSTNAME falls back to the name of the machine") {
  ::unsetenv("HOSTNAME");
  CHECK(ProcessEnvironment("HOSTNAME") == HostName());
  CHECK_FALSE(ProcessEnvironment("ECHOFS_NO_SUCH_VARIABLE").has_value());
}

TEST_CASE("config: two directories alone make a primary that does not listen") {
  const absl::StatusOr<Config> config = LoadConfig(Directories(), kEnvironment);
  REQUIRE(config.ok());
  CHECK(config->node.id == "box");
  CHECK(config->IsPrimary());
  CHECK(config->grpc.listen.empty());
  CHECK_FALSE(config->fuse.allow_other.has_value());
}

TEST_CASE("config: flags win over the file") {
  const test::TempDir dir;
  const std::string path = dir.path() + "/echofs.yml";
  std::ofstream(path)
      << "fuse: { dir: /a }\ndata: { dir: /b }\nnode: { id: n }\nlog: { level: warn }\n";
  ConfigFlags flags;
  flags.config_file = path;
  absl::StatusOr<Config> config = LoadConfig(flags, kEnvironment);
  REQUIRE(config.ok());
  CHECK(config->fuse.dir == "/a");
  CHECK(config->data.dir == "/b");
  CHECK(config->node.id == "n");
  CHECK(*FindDataDir(flags, kEnvironment) == "/b");

  flags = Directories();
  flags.config_file = path;
  flags.node_id = "m";
  flags.log_level = "debug";
  flags.grpc_listen = "0.0.0.0:7";
  flags.lease_primary = "other:7";
  flags.allow_other = true;
  config = LoadConfig(flags, kEnvironment);
  REQUIRE(config.ok());
  CHECK(config->fuse.dir == "/mnt/x");
  CHECK(config->data.dir == "/var/x");
  CHECK(config->node.id == "m");
  CHECK(config->log.level == "debug");
  CHECK(config->fuse.allow_other == true);
  CHECK(config->grpc.advertise == "box:7");
  CHECK_FALSE(config->IsPrimary());
  CHECK(*FindDataDir(flags, kEnvironment) == "/var/x");
}

TEST_CASE("config: advertise is the listening address unless it stands for all interfaces") {
  ConfigFlags flags = Directories();
  flags.lease_primary = "10.0.0.1:7";
  flags.grpc_listen = "10.0.0.1:7";
  CHECK(LoadConfig(flags, kEnvironment)->grpc.advertise == "10.0.0.1:7");
  CHECK(LoadConfig(flags, kEnvironment)->IsPrimary());
  flags.grpc_listen = "[::]:7";
  CHECK(LoadConfig(flags, kEnvironment)->grpc.advertise == "box:7");
  flags.grpc_advertise = "10.0.0.1:8";
  CHECK(LoadConfig(flags, kEnvironment)->grpc.advertise == "10.0.0.1:8");
}

TEST_CASE("config: what does not fit together is an error that says what to do") {
  ConfigFlags flags;
  CHECK_THAT(LoadError(flags), HasText("--fuse-dir"));
  flags.fuse_dir = "/mnt/x";
  CHECK_THAT(LoadError(flags), HasText("--data-dir"));
  flags.data_dir = "/mnt/x/./data/";
  CHECK_THAT(LoadError(flags), HasText("overlap"));

  flags = Directories();
  flags.grpc_listen = "a:1";
  CHECK_THAT(LoadError(flags), HasText("lease.primary"));
  flags = Directories();
  flags.grpc_advertise = "a:1";
  CHECK_THAT(LoadError(flags), HasText("grpc.listen is not"));
  flags = Directories();
  flags.grpc_listen = "a";
  CHECK_THAT(LoadError(flags), HasText("--grpc-listen"));
  flags = Directories();
  flags.node_id = "";
  CHECK_THAT(LoadError(flags), HasText("--node-id"));
  flags = Directories();
  flags.log_level = "x";
  CHECK_THAT(LoadError(flags), HasText("--log-level"));
}

std::string LeaseError(const std::string& lease) {
  const test::TempDir dir;
  ConfigFlags flags = Directories();
  flags.config_file = dir.path() + "/echofs.yml";
  std::ofstream(flags.config_file) << lease;
  return LoadError(flags);
}

TEST_CASE("config: a lease service takes a list of endpoints, or one") {
  for (const char* endpoints : {"[ \"10.0.0.9:1\" ]", "10.0.0.9:1", "\"${LEASE}\""}) {
    INFO(endpoints);
    const test::TempDir dir;
    ConfigFlags flags = Directories();
    flags.config_file = dir.path() + "/echofs.yml";
    std::ofstream(flags.config_file)
        << "grpc: { listen: 10.0.0.1:7 }\n"
        << "lease: { type: service, ttl: 1s, endpoints: " << endpoints << " }\n";
    const absl::StatusOr<Config> config =
        LoadConfig(flags, Variables({{"HOSTNAME", "box"}, {"LEASE", "10.0.0.9:1"}}));
    INFO(config.status());
    REQUIRE(config.ok());
    CHECK(config->lease.type == LeaseType::kService);
    CHECK(config->lease.endpoints == std::vector<std::string>{"10.0.0.9:1"});
    CHECK(config->lease.key == "echofs");
    CHECK_FALSE(config->IsPrimary());
  }
}

TEST_CASE("config: settings of the lease that do not fit together are errors that say what to do") {
  const std::string grpc = "grpc: { listen: 10.0.0.1:7 }\n";
  CHECK_THAT(LeaseError(grpc + "lease: { endpoints: \"a:1\", primary: \"10.0.0.1:7\" }"),
             HasText("lease.type is static"));
  CHECK_THAT(LeaseError(grpc + "lease: { type: service }"),
             HasText("lease.endpoints is empty") && HasText("lease server"));
  CHECK_THAT(LeaseError(grpc + "lease: { type: etcd }"), HasText("each member of etcd"));
  CHECK_THAT(LeaseError("lease: { type: etcd, endpoints: \"a:1\" }"),
             HasText("grpc.listen is not set"));
  CHECK_THAT(LeaseError(grpc + "lease: { type: etcd, endpoints: \"a:1\", primary: \"b:1\" }"),
             HasText("remove lease.primary"));
  CHECK_THAT(LeaseError(grpc + "lease: { type: service, endpoints: \"a:1\", ttl: 999ms }"),
             HasText("from 1s to 24h"));
  CHECK_THAT(LeaseError(grpc + "lease: { type: etcd, endpoints: \"a:1\", ttl: 1s }"),
             HasText("from 2s to 24h"));
  CHECK_THAT(LeaseError(grpc + "lease: { type: etcd, endpoints: \"a:1\", ttl: 25h }"),
             HasText("from 2s to 24h"));
}

TEST_CASE("config: a file that cannot be read is a clear error") {
  const test::TempDir dir;
  ConfigFlags flags = Directories();
  flags.config_file = dir.path() + "/none.yml";
  CHECK_THAT(LoadError(flags), HasText("none.yml") && HasText("No such file"));
  flags.config_file = dir.path();
  CHECK_THAT(LoadError(flags), HasText("cannot read"));
  flags.config_file = dir.path() + "/large.yml";
  std::ofstream(flags.config_file) << std::string((1 << 20) + 1, '#');
  CHECK_THAT(LoadError(flags), HasText("larger than 1 MiB"));
}

}  // namespace
}  // namespace echofs::cmd
