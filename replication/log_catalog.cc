#include "replication/log_catalog.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "replication/status_macros.h"

namespace echofs {
namespace {

constexpr std::size_t kFixedSize = 72;
constexpr std::uint16_t kDropped = 1;

void EncodePosition(const DatabasePosition& position, std::string* out) {
  std::uint8_t p[kFixedSize] = {};
  StoreBe16(p, static_cast<std::uint16_t>(position.name.size()));
  StoreBe16(p + 2, position.dropped ? kDropped : 0);
  StoreBe32(p + 4, position.page_size);
  StoreBe64(p + 8, position.txid.value);
  StoreBe64(p + 16, position.digest);
  StoreBe64(p + 24, position.index.value);
  StoreBe32(p + 32, position.page_count);
  StoreBe32(p + 36, position.attributes.mode);
  StoreBe32(p + 40, position.attributes.uid);
  StoreBe32(p + 44, position.attributes.gid);
  StoreBe32(p + 48, position.wal.salt1);
  StoreBe32(p + 52, position.wal.salt2);
  StoreBe64(p + 56, position.wal.begin_offset);
  StoreBe64(p + 64, position.wal.end_offset);
  out->append(reinterpret_cast<const char*>(p), kFixedSize);
  out->append(position.name);
}

// `p` holds kFixedSize bytes; the name is read by the caller.
DatabasePosition LoadPosition(const std::uint8_t* p) {
  DatabasePosition position;
  position.dropped = (LoadBe16(p + 2) & kDropped) != 0;
  position.page_size = LoadBe32(p + 4);
  position.txid = {LoadBe64(p + 8)};
  position.digest = LoadBe64(p + 16);
  position.index = {LoadBe64(p + 24)};
  position.page_count = LoadBe32(p + 32);
  position.attributes = {LoadBe32(p + 36), LoadBe32(p + 40), LoadBe32(p + 44)};
  position.wal = {LoadBe32(p + 48), LoadBe32(p + 52), LoadBe64(p + 56), LoadBe64(p + 64)};
  return position;
}

}  // namespace

absl::StatusOr<LogCatalog> LogCatalog::FromPositions(
    const std::vector<DatabasePosition>& positions) {
  LogCatalog catalog;
  for (const DatabasePosition& position : positions) {
    if (!IsValidDatabaseName(position.name)) {
      return absl::InvalidArgumentError(
          fmt::format("'{}' cannot be the name of a database", position.name));
    }
    if (!catalog.databases_.emplace(position.name, position).second) {
      return absl::InvalidArgumentError(fmt::format("database {} is there twice", position.name));
    }
  }
  return catalog;
}

absl::StatusOr<LogCatalog> LogCatalog::Decode(ByteView bytes) {
  std::vector<DatabasePosition> positions;
  while (!bytes.empty()) {
    if (bytes.size() < kFixedSize) return absl::DataLossError("the catalog ends in an entry");
    const std::size_t name_size = LoadBe16(bytes.data());
    if (bytes.size() - kFixedSize < name_size) {
      return absl::DataLossError("the catalog ends in a name");
    }
    positions.push_back(LoadPosition(bytes.data()));
    positions.back().name = AsText(bytes.subspan(kFixedSize, name_size));
    bytes = bytes.subspan(kFixedSize + name_size);
  }
  absl::StatusOr<LogCatalog> catalog = FromPositions(positions);
  if (!catalog.ok()) return absl::DataLossError(catalog.status().message());
  return catalog;
}

std::string LogCatalog::Encode() const {
  std::string out;
  for (const DatabasePosition& position : Positions()) EncodePosition(position, &out);
  return out;
}

absl::Status LogCatalog::Check(const LogEntry& entry) const {
  if (entry.kind == EntryKind::kOpenTerm) return absl::OkStatus();
  const DatabasePosition* position = Find(entry.database);
  const bool exists = position != nullptr && !position->dropped;
  if (entry.kind == EntryKind::kDrop && !exists) {
    return absl::FailedPreconditionError(
        fmt::format("database {} cannot be dropped: it does not exist", entry.database));
  }
  const std::uint64_t txid = position == nullptr ? 0 : position->txid.value;
  if (entry.txid.value != txid + 1) {
    return absl::FailedPreconditionError(
        fmt::format("gap in database {}: the entry has TXID {}, the last one is {}", entry.database,
                    entry.txid.value, txid));
  }
  const std::uint64_t digest = exists ? position->digest : 0;
  if (entry.digest_before != digest) {
    return absl::FailedPreconditionError(
        fmt::format("database {}: TXID {} starts from digest {:016x}, the database is at {:016x}",
                    entry.database, entry.txid.value, entry.digest_before, digest));
  }
  return absl::OkStatus();
}

void LogCatalog::Apply(const LogEntry& entry) {
  if (entry.kind == EntryKind::kOpenTerm) return;
  DatabasePosition& position = databases_[entry.database];
  if (position.name.empty()) position.name = entry.database;
  position.txid = entry.txid;
  position.digest = entry.digest_after;
  position.page_size = entry.page_size;
  position.page_count = entry.page_count;
  position.attributes = entry.attributes;
  position.wal = entry.wal;
  position.index = entry.index;
  position.dropped = entry.kind == EntryKind::kDrop;
}

const DatabasePosition* LogCatalog::Find(const std::string& database) const {
  const auto it = databases_.find(database);
  return it == databases_.end() ? nullptr : &it->second;
}

std::vector<DatabasePosition> LogCatalog::Positions() const {
  std::vector<DatabasePosition> positions;
  positions.reserve(databases_.size());
  for (const auto& [name, position] : databases_) positions.push_back(position);
  std::sort(positions.begin(), positions.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  return positions;
}

absl::Status CheckFollows(const LogEntry& entry, LogIndex last, Term last_term,
                          const LogCatalog& catalog) {
  ECHOFS_RETURN_IF_ERROR(CheckEntryFields(entry));
  if (entry.index != last.Next()) {
    return absl::FailedPreconditionError(
        fmt::format("gap in the log: the entry has index {}, the last one is {}", entry.index.value,
                    last.value));
  }
  if (entry.term < last_term) {
    return absl::FailedPreconditionError(
        fmt::format("entry {} has term {}, the log is already at term {}", entry.index.value,
                    entry.term.value, last_term.value));
  }
  if (entry.kind == EntryKind::kOpenTerm && entry.term == last_term) {
    return absl::FailedPreconditionError(fmt::format("term {} is open already", entry.term.value));
  }
  return catalog.Check(entry);
}

}  // namespace echofs
