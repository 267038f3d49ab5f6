// A database's file on its way from a replica to the primary, which imports it.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "replication/bytes.h"
#include "replication/change_log.h"
#include "replication/storage.h"
#include "replication/transport.h"

namespace echofs {

// What the file is to become.
struct ImportHeader {
  std::string cluster_id;
  std::string database;
  std::uint64_t size = 0;  // bytes
  bool replace = false;    // also when there is a database of this name
};

// Sends the header, and header.size bytes of `file`; waits for the primary's answer. Errors are for people.
absl::StatusOr<DatabasePosition> SendImport(const ImportHeader& header, ByteSource& file,
                                            ImportCall& call);

// The first message. InvalidArgument for a name that could leave the data directory, or an impossible size.
absl::StatusOr<ImportHeader> ReceiveImportHeader(ImportServerStream& stream);
// What follows, exactly `size` bytes, into a new file `path`, which the caller removes. ResourceExhausted when the disk
// has no room for it and for its change set. DeadlineExceeded when nothing comes for kImportSilenceMax.
absl::Status ReceiveImport(Storage& storage, const std::string& path, std::uint64_t size,
                           ImportServerStream& stream);

}  // namespace echofs
