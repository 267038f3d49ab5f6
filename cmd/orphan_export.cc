#include "cmd/orphan_export.h"

#include <fmt/format.h>

#include <filesystem>
#include <system_error>

#include "replication/bytes.h"
#include "replication/log_entry.h"
#include "replication/ltx.h"
#include "replication/status_macros.h"

namespace echofs::cmd {

// Links that lead to the directory are the user's own; below it there are to be none.
OrphanExport::OrphanExport(const std::string& directory) {
  std::error_code error;
  directory_ = std::filesystem::weakly_canonical(std::filesystem::absolute(directory), error);
  if (error) directory_ = directory;
}

absl::Status OrphanExport::Add(const AdminClient::OrphanPiece& piece) {
  if (piece.begin) ECHOFS_RETURN_IF_ERROR(Begin(piece));
  if (file_ == nullptr) return absl::DataLossError("the node sent a piece of nothing");
  if (piece.data.empty()) return absl::OkStatus();
  ECHOFS_RETURN_IF_ERROR(file_->WriteAt(offset_, AsBytes(piece.data)));
  offset_ += piece.data.size();
  return absl::OkStatus();
}

absl::Status OrphanExport::Begin(const AdminClient::OrphanPiece& piece) {
  ECHOFS_RETURN_IF_ERROR(Finish());
  if (!IsValidDatabaseName(piece.database)) {
    return absl::DataLossError(
        fmt::format("'{}' cannot be the name of a database", piece.database));
  }
  const std::string directory = directory_ + "/" + piece.database;
  std::string name = LtxFileName(piece.txid, piece.txid);
  if (piece.drop) name.replace(name.rfind('.'), std::string::npos, ".drop");
  ECHOFS_RETURN_IF_ERROR(PosixStorage()->MakeDirectories(directory));
  OpenOptions options;
  options.create = true;
  options.exclusive = true;
  options.mode = 0600;
  absl::StatusOr<std::unique_ptr<File>> file =
      PosixStorage()->Open(directory + "/" + name, options);
  if (absl::IsAlreadyExists(file.status())) {
    return absl::AlreadyExistsError(
        fmt::format("{}/{} exists already: export into another directory", directory, name));
  }
  ECHOFS_RETURN_IF_ERROR(file.status());
  file_ = *std::move(file);
  offset_ = 0;
  ++count_;
  return absl::OkStatus();
}

absl::Status OrphanExport::Finish() { return file_ ? file_->Sync() : absl::OkStatus(); }

}  // namespace echofs::cmd
