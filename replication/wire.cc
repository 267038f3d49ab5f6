#include "replication/wire.h"

#include <fmt/format.h>

#include "echofs/v1/replication.pb.h"
#include "replication/digest.h"

namespace echofs {

void ToMessage(const DatabasePosition& position, v1::DatabasePosition* message) {
  message->set_name(position.name);
  message->set_txid(position.txid.value);
  message->set_digest(position.digest);
  message->set_page_size(position.page_size);
  message->set_page_count(position.page_count);
  message->set_mode(position.attributes.mode);
  message->set_uid(position.attributes.uid);
  message->set_gid(position.attributes.gid);
  message->set_index(position.index.value);
  message->set_dropped(position.dropped);
  message->set_wal_salt1(position.wal.salt1);
  message->set_wal_salt2(position.wal.salt2);
  message->set_wal_begin_offset(position.wal.begin_offset);
  message->set_wal_end_offset(position.wal.end_offset);
}

absl::StatusOr<DatabasePosition> FromMessage(const v1::DatabasePosition& message) {
  if (!IsValidDatabaseName(message.name())) {
    return absl::InvalidArgumentError("the primary named a database with an invalid name");
  }
  if (!message.dropped() && !IsValidPageSize(message.page_size())) {
    return absl::InvalidArgumentError(
        fmt::format("the primary gave database {} an impossible page size of {}", message.name(),
                    message.page_size()));
  }
  DatabasePosition position;
  position.name = message.name();
  position.txid = {message.txid()};
  position.digest = message.digest();
  position.page_size = message.page_size();
  position.page_count = message.page_count();
  position.attributes = {message.mode(), message.uid(), message.gid()};
  position.index = {message.index()};
  position.dropped = message.dropped();
  position.wal = {message.wal_salt1(), message.wal_salt2(), message.wal_begin_offset(),
                  message.wal_end_offset()};
  return position;
}

}  // namespace echofs
