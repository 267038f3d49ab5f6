#include "cmd/admin_orphans.h"

#include "echofs/v1/admin.pb.h"
#include "replication/status_macros.h"

namespace echofs::cmd {
namespace {

constexpr std::size_t kPieceSize = 256 << 10;  // bytes

absl::Status Gone() { return absl::CancelledError("the client has gone"); }

absl::Status SendOrphan(const LogEntry& entry, ByteSource& payload,
                        const std::function<bool(const v1::OrphanPiece&)>& write) {
  if (entry.kind == EntryKind::kOpenTerm) return absl::OkStatus();
  v1::OrphanPiece piece;
  piece.mutable_entry()->set_database(entry.database);
  piece.mutable_entry()->set_txid(entry.txid.value);
  piece.mutable_entry()->set_drop(entry.kind == EntryKind::kDrop);
  std::vector<std::uint8_t> bytes(kPieceSize);
  while (true) {
    ECHOFS_ASSIGN_OR_RETURN(const std::size_t n, payload.Read(bytes));
    if (n == 0 && !piece.has_entry()) return absl::OkStatus();
    piece.set_data(bytes.data(), n);
    if (!write(piece)) return Gone();
    piece.clear_entry();
  }
}

}  // namespace

absl::Status SendOrphanList(OrphanStore& store,
                            const std::function<bool(const v1::OrphanSetInfo&)>& write) {
  ECHOFS_ASSIGN_OR_RETURN(const std::vector<OrphanInfo> list, store.List());
  for (const OrphanInfo& info : list) {
    v1::OrphanSetInfo message;
    message.set_id(info.id);
    message.set_common_index(info.common.index.value);
    message.set_common_known(info.common.known);
    message.set_first_index(info.first.value);
    message.set_last_index(info.last.value);
    message.set_term(info.term.value);
    message.set_primary(info.primary);
    message.set_primary_term(info.primary_term.value);
    message.set_kept_ms(info.kept_ms);
    message.set_change_sets(info.change_sets);
    message.set_bytes(info.bytes);
    message.set_damage(info.damage);
    for (const auto& [name, count] : info.databases) {
      v1::OrphanSetInfo::Database* database = message.add_databases();
      database->set_name(name);
      database->set_change_sets(count);
    }
    if (!write(message)) return Gone();
  }
  return absl::OkStatus();
}

absl::Status SendOrphans(OrphanStore& store, const std::string& id,
                         const std::function<bool(const v1::OrphanPiece&)>& write) {
  return store.Read(id, [&](const LogEntry& entry, ByteSource& payload) {
    return SendOrphan(entry, payload, write);
  });
}

absl::StatusOr<std::uint64_t> DiscardOrphans(OrphanStore& store, const std::string& id, bool all) {
  if (!all) {
    ECHOFS_RETURN_IF_ERROR(store.Discard(id));
    return 1;
  }
  ECHOFS_ASSIGN_OR_RETURN(const std::vector<OrphanInfo> list, store.List());
  for (const OrphanInfo& info : list) ECHOFS_RETURN_IF_ERROR(store.Discard(info.id));
  return list.size();
}

}  // namespace echofs::cmd
