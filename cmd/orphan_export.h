// Orphans as files for people and other tools: DIR/DATABASE/TXID-TXID.ltx, 16 hex digits each, so that they sort and
// readers of LTX accept them; and an empty TXID-TXID.drop where the database was deleted.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "cmd/admin_client.h"
#include "replication/storage.h"

namespace echofs::cmd {

// One thread. Files are never overwritten: AlreadyExists then.
class OrphanExport {
 public:
  explicit OrphanExport(const std::string& directory);

  absl::Status Add(const AdminClient::OrphanPiece& piece);
  // Makes the last file durable.
  absl::Status Finish();
  std::uint64_t count() const { return count_; }

 private:
  absl::Status Begin(const AdminClient::OrphanPiece& piece);

  std::string directory_;  // without symbolic links
  std::unique_ptr<File> file_;
  std::uint64_t offset_ = 0;
  std::uint64_t count_ = 0;
};

}  // namespace echofs::cmd
