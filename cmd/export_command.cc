#include <fmt/format.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <memory>

#include "cmd/commands.h"
#include "cmd/database_reader.h"
#include "cmd/output_file.h"
#include "cmd/progress.h"
#include "cmd/reports.h"
#include "cmd/tools_client.h"
#include "replication/status_macros.h"

namespace echofs::cmd {
namespace {

struct Options {
  ConfigFlags flags;
  std::string database;
  std::string file;
  bool force = false;
  bool json = false;
};

// SQLite would take these for the exported database's, and change it. An empty -wal, as readers leave it behind, says
// nothing.
absl::Status CheckNeighbours(const std::string& path) {
  for (const char* suffix : {"-journal", "-wal"}) {
    struct stat info;
    if (::stat((path + suffix).c_str(), &info) != 0 || info.st_size == 0) continue;
    return absl::FailedPreconditionError(
        fmt::format("{0}{1} is in the way: {0} is in use, or {0}{1} was left behind by another "
                    "database; choose another name, or remove it",
                    path, suffix));
  }
  return absl::OkStatus();
}

// A database cannot be renamed in a mount.
absl::Status CheckPlace(const std::string& path, const std::string& mount_point) {
  const std::unique_ptr<char, decltype(&std::free)> real(
      ::realpath(DirectoryOf(path).c_str(), nullptr), &std::free);
  if (real == nullptr) {
    return absl::NotFoundError(fmt::format("there is no directory {}", DirectoryOf(path)));
  }
  const std::string directory = std::string(real.get()) + "/";
  if (directory.rfind(mount_point + "/", 0) != 0) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format(
      "{} is in the mount itself: export to another place, or use 'VACUUM INTO' there", path));
}

absl::StatusOr<DatabasePosition> Export(const Options& options, const std::string& data_dir) {
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<ToolsClient> client,
                          ToolsClient::Connect(data_dir));
  ECHOFS_ASSIGN_OR_RETURN(const std::string mount_point, client->MountPoint());
  ECHOFS_RETURN_IF_ERROR(CheckPlace(options.file, mount_point));
  ECHOFS_RETURN_IF_ERROR(CheckNeighbours(options.file));
  ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<OutputFile> output,
                          OutputFile::Create(options.file, options.force));
  Progress progress(fmt::format("exporting {}", options.database));
  ECHOFS_ASSIGN_OR_RETURN(const DatabaseContent content,
                          ReadDatabase(client.get(), options.database, &output->file(), &progress));
  if (content.digest != content.position.digest) {
    return absl::DataLossError(fmt::format(
        "this node's copy of {} is damaged: at TXID {:016x} it has digest {:016x}, the history "
        "{:016x}; nothing was exported, see 'echofs verify'",
        options.database, content.position.txid.value, content.digest, content.position.digest));
  }
  progress.Begin(fmt::format("syncing {}", options.file));
  ECHOFS_RETURN_IF_ERROR(output->Finish());
  return content.position;
}

int Export(const Options& options) {
  const absl::StatusOr<std::string> data_dir = FindDataDir(options.flags, ProcessEnvironment);
  if (!data_dir.ok()) return FailUsage(data_dir.status());
  const absl::StatusOr<DatabasePosition> position = Export(options, *data_dir);
  if (!position.ok()) return Fail(position.status());
  std::fputs((options.json ? PositionJson(*position)
                           : PositionText(fmt::format("exported to {}", options.file), *position))
                 .c_str(),
             stdout);
  return kExitOk;
}

}  // namespace

void AddExportCommand(CLI::App* app, int* exit_code) {
  CLI::App* command = app->add_subcommand(
      "export", "Copy a database of a running node into a file, while writers go on");
  const auto options = std::make_shared<Options>();
  command->add_option("DB", options->database, "The database's path below the mount")->required();
  command->add_option("FILE", options->file, "File to write, outside of the mount")->required();
  AddNodeOptions(command, &options->flags);
  command->add_flag("--force", options->force, "Replace FILE when it exists");
  command->add_flag("--json", options->json, "Print where the copy stands as JSON");
  command->callback([options, exit_code] { *exit_code = Export(*options); });
}

}  // namespace echofs::cmd
