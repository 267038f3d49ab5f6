#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdio>
#include <memory>

#include "cmd/admin_client.h"
#include "cmd/change_set_export.h"
#include "cmd/commands.h"
#include "cmd/reports.h"
#include "cmd/tools_client.h"

namespace echofs::cmd {
namespace {

struct Options {
  ConfigFlags flags;
  std::string database;
  std::string from;
  std::string exported;
  std::string to = ".";
  std::uint64_t limit = 0;
  bool json = false;
};

// TXIDs are hexadecimal wherever they are shown; leading zeros may be left out.
absl::StatusOr<Txid> ParseTxid(const std::string& text) {
  Txid txid;
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, txid.value, 16);
  if (error == std::errc() && at == end && txid.value != 0) return txid;
  return absl::InvalidArgumentError(
      fmt::format("'{}' is no TXID: that is up to 16 hex digits, as 'echofs log' shows it", text));
}

int List(const std::string& data_dir, const Options& options, Txid from) {
  const auto client = AdminClient::Connect(data_dir);
  if (!client.ok()) return Fail(client.status());
  bool first = true;
  const absl::Status status = (*client)->ChangeSets(
      options.database, {from, options.limit}, [&](const ChangeSetSummary& summary) {
        if (first && !options.json) std::fputs(ChangeSetHeading().c_str(), stdout);
        first = false;
        std::fputs((options.json ? ChangeSetJson(summary) : ChangeSetText(summary)).c_str(),
                   stdout);
      });
  if (!status.ok()) return Fail(status);
  if (first && !options.json) {
    std::puts(from == Txid{} ? "the log holds no change set of this database"
                             : "the log holds no such change set of this database");
  }
  return kExitOk;
}

int Export(const std::string& data_dir, const Options& options, Txid txid) {
  const auto client = ToolsClient::Connect(data_dir);
  if (!client.ok()) return Fail(client.status());
  const absl::StatusOr<std::string> path =
      ExportChangeSet(client->get(), options.database, txid, options.to);
  if (!path.ok()) return Fail(path.status());
  fmt::print("{}\n", *path);
  return kExitOk;
}

int Log(const Options& options) {
  const absl::StatusOr<std::string> data_dir = FindDataDir(options.flags, ProcessEnvironment);
  if (!data_dir.ok()) return FailUsage(data_dir.status());
  absl::StatusOr<Txid> txid = Txid{};
  const std::string& text = options.exported.empty() ? options.from : options.exported;
  if (!text.empty()) txid = ParseTxid(text);
  if (!txid.ok()) return FailUsage(txid.status());
  return options.exported.empty() ? List(*data_dir, options, *txid)
                                  : Export(*data_dir, options, *txid);
}

}  // namespace

void AddLogCommand(CLI::App* app, int* exit_code) {
  CLI::App* command =
      app->add_subcommand("log", "List the change sets of a database that the log still holds");
  const auto options = std::make_shared<Options>();
  command->add_option("DB", options->database, "The database's path below the mount")->required();
  AddNodeOptions(command, &options->flags);
  CLI::Option* from = command->add_option("--from", options->from, "Begin with this TXID");
  CLI::Option* limit =
      command->add_option("--limit", options->limit, "At most so many; without --from the newest");
  CLI::Option* json = command->add_flag("--json", options->json, "Print one JSON object a line");
  CLI::Option* exported = command->add_option("--export", options->exported,
                                              "Write the change set of this TXID as an LTX file");
  command
      ->add_option("--to", options->to,
                   "With --export: a directory, or a new file (default: here, as TXID-TXID.ltx)")
      ->needs(exported);
  for (CLI::Option* other : {from, limit, json}) exported->excludes(other);
  command->callback([options, exit_code] { *exit_code = Log(*options); });
}

}  // namespace echofs::cmd
