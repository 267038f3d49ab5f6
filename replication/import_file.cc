#include "replication/import_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "echofs/v1/replication.pb.h"
#include "replication/limits.h"
#include "replication/log_entry.h"
#include "replication/silence_timer.h"
#include "replication/status_macros.h"
#include "replication/wire.h"

namespace echofs {
namespace {

// The file itself, and the change set that it becomes.
constexpr std::uint64_t kRoomFactor = 2;
constexpr std::uint64_t kFileSizeMin = 512;  // bytes, one page

}  // namespace

absl::StatusOr<DatabasePosition> SendImport(const ImportHeader& header, ByteSource& file,
                                            ImportCall& call) {
  v1::ImportDatabaseRequest request;
  request.mutable_header()->set_cluster_id(header.cluster_id);
  request.mutable_header()->set_database(header.database);
  request.mutable_header()->set_size(header.size);
  request.mutable_header()->set_replace(header.replace);
  bool alive = call.Write(request);
  std::vector<std::uint8_t> chunk(kImportChunkSizeMax);
  for (std::uint64_t sent = 0; alive && sent < header.size;) {
    const std::uint64_t wanted = std::min<std::uint64_t>(chunk.size(), header.size - sent);
    const MutableByteView bytes(chunk.data(), static_cast<std::size_t>(wanted));
    ECHOFS_RETURN_IF_ERROR(ReadExactly(file, bytes));
    request.set_data(bytes.data(), bytes.size());
    alive = call.Write(request);
    sent += bytes.size();
  }
  v1::ImportDatabaseResponse response;
  ECHOFS_RETURN_IF_ERROR(call.Finish(&response));
  return FromMessage(response.position());
}

absl::StatusOr<ImportHeader> ReceiveImportHeader(ImportServerStream& stream) {
  v1::ImportDatabaseRequest request;
  SilenceTimer timer(kHelloTimeout, [&stream] { stream.Cancel(); });
  const bool read = stream.Read(&request);
  ECHOFS_RETURN_IF_ERROR(timer.Stop());
  if (!read || !request.has_header()) {
    return absl::InvalidArgumentError("an import begins with its header");
  }
  const v1::ImportDatabaseRequest::Header& header = request.header();
  if (!IsValidDatabaseName(header.database())) {
    return absl::InvalidArgumentError("the request names a database with an invalid name");
  }
  if (header.size() < kFileSizeMin || header.size() > kDatabaseSizeMax) {
    return absl::InvalidArgumentError(
        fmt::format("a file of {} bytes is no database", header.size()));
  }
  return ImportHeader{header.cluster_id(), header.database(), header.size(), header.replace()};
}

absl::Status ReceiveImport(Storage& storage, const std::string& path, std::uint64_t size,
                           ImportServerStream& stream) {
  const std::string directory = path.substr(0, path.rfind('/'));
  ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t free, storage.FreeBytes(directory));
  if (free / kRoomFactor < size) {
    return absl::ResourceExhaustedError(
        fmt::format("its disk has {} bytes left, and importing {} bytes takes {} beside the "
                    "database itself",
                    free, size, size * kRoomFactor));
  }
  ECHOFS_ASSIGN_OR_RETURN(
      const std::unique_ptr<File> file,
      storage.Open(path, OpenOptions{.create = true, .truncate = true, .mode = 0600}));
  std::uint64_t received = 0;
  v1::ImportDatabaseRequest request;
  SilenceTimer timer(kImportSilenceMax, [&stream] { stream.Cancel(); });
  while (stream.Read(&request)) {
    timer.Heard();
    const std::string& data = request.data();
    if (data.empty() || data.size() > kImportChunkSizeMax || data.size() > size - received) {
      return absl::InvalidArgumentError("the content of the import does not fit its header");
    }
    ECHOFS_RETURN_IF_ERROR(file->WriteAt(received, AsBytes(data)));
    received += data.size();
    timer.Expect();
  }
  ECHOFS_RETURN_IF_ERROR(timer.Stop());
  if (received == size) return absl::OkStatus();
  return absl::CancelledError(fmt::format("only {} of {} bytes came", received, size));
}

}  // namespace echofs
