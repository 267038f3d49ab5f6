#include "cmd/daemon_tools.h"

#include <fmt/format.h>

#include <memory>
#include <optional>
#include <vector>

#include "replication/status_macros.h"

namespace echofs::cmd {
namespace {

constexpr std::size_t kPieceSize = 256 << 10;  // bytes

}  // namespace

absl::Status DaemonTools::Export(const std::string& database, DatabaseSink& sink) {
  return ExportDatabase(*log_, *databases_, database, sink);
}

absl::Status DaemonTools::ExportChangeSet(const std::string& database, Txid txid,
                                          const std::function<bool(ByteView)>& write) {
  ECHOFS_RETURN_IF_ERROR(log_->Position(database).status());
  const std::unique_ptr<LogReader> reader = log_->Read(log_->first_index());
  std::optional<LogEntry> entry;
  do {
    ECHOFS_ASSIGN_OR_RETURN(entry, reader->Next());
    if (!entry) {
      return absl::NotFoundError(
          fmt::format("the log holds no change set {:016x} of {}; 'echofs log {}' lists those that "
                      "it holds",
                      txid.value, database, database));
    }
  } while (entry->database != database || entry->txid != txid);
  if (entry->kind == EntryKind::kDrop) {
    return absl::FailedPreconditionError(
        fmt::format("by change set {:016x} {} was deleted, so there is no LTX file of it",
                    txid.value, database));
  }
  const std::unique_ptr<ByteSource> payload = reader->Payload();
  std::vector<std::uint8_t> bytes(kPieceSize);
  while (true) {
    ECHOFS_ASSIGN_OR_RETURN(const std::size_t n, payload->Read(bytes));
    if (n == 0) return absl::OkStatus();
    if (!write(ByteView(bytes).first(n))) return absl::CancelledError("the client has gone");
  }
}

}  // namespace echofs::cmd
