#include "replication/log_entry.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "replication/digest.h"
#include "replication/status_macros.h"

namespace echofs {
namespace {

constexpr char kMagic[4] = {'E', 'C', 'H', 'E'};
constexpr std::size_t kChecksumOffset = 112;

// XXH3_64 of the header before its checksum, and the name. `record` holds at least both.
std::uint64_t HeaderChecksum(const std::uint8_t* record, std::size_t name_size) {
  std::uint8_t joined[kChecksumOffset + kDatabaseNameSizeMax];
  std::memcpy(joined, record, kChecksumOffset);
  std::memcpy(joined + kChecksumOffset, record + kRecordHeaderSize, name_size);
  return XXH3_64bits(joined, kChecksumOffset + name_size);
}

bool EndsWith(std::string_view name, std::string_view suffix) {
  return name.size() > suffix.size() && name.substr(name.size() - suffix.size()) == suffix;
}

// The fields that lie at fixed places, without the name. `p` holds kRecordHeaderSize bytes.
LogEntry LoadFields(const std::uint8_t* p) {
  LogEntry entry;
  entry.kind = static_cast<EntryKind>(p[4]);
  entry.index = {LoadBe64(p + 8)};
  entry.term = {LoadBe64(p + 16)};
  entry.txid = {LoadBe64(p + 24)};
  entry.digest_before = LoadBe64(p + 32);
  entry.digest_after = LoadBe64(p + 40);
  entry.page_size = LoadBe32(p + 48);
  entry.page_count = LoadBe32(p + 52);
  entry.attributes = {LoadBe32(p + 56), LoadBe32(p + 60), LoadBe32(p + 64)};
  entry.payload_size = LoadBe64(p + 72);
  entry.timestamp_ms = static_cast<std::int64_t>(LoadBe64(p + 80));
  entry.wal = {LoadBe32(p + 88), LoadBe32(p + 92), LoadBe64(p + 96), LoadBe64(p + 104)};
  return entry;
}

absl::Status CheckKindFields(const LogEntry& entry) {
  switch (entry.kind) {
    case EntryKind::kOpenTerm:
      if (!entry.database.empty() || entry.txid.value != 0 || entry.payload_size != 0 ||
          entry.digest_before != 0 || entry.digest_after != 0) {
        return absl::InvalidArgumentError(
            "an entry that opens a term has no database and no payload");
      }
      return absl::OkStatus();
    case EntryKind::kChangeSet:
      if (!IsValidPageSize(entry.page_size)) {
        return absl::InvalidArgumentError(fmt::format("impossible page size {}", entry.page_size));
      }
      break;
    case EntryKind::kDrop:
      if (entry.payload_size != 0 || entry.digest_after != 0) {
        return absl::InvalidArgumentError(
            "an entry that drops a database has no payload and digest 0");
      }
      break;
    default:
      return absl::InvalidArgumentError(
          fmt::format("unknown kind of entry {}", static_cast<unsigned>(entry.kind)));
  }
  if (!IsValidDatabaseName(entry.database)) {
    return absl::InvalidArgumentError(
        fmt::format("'{}' cannot be the name of a database", entry.database));
  }
  if (entry.txid.value == 0) return absl::InvalidArgumentError("TXID 0");
  return absl::OkStatus();
}

}  // namespace

bool IsValidDatabaseName(std::string_view name) {
  if (name.empty() || name.size() > kDatabaseNameSizeMax) return false;
  if (name.find('\0') != std::string_view::npos) return false;
  for (const std::string_view suffix : {"-journal", "-wal", "-shm", "-pos"}) {
    if (EndsWith(name, suffix)) return false;
  }
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('/', begin), name.size());
    const std::string_view component = name.substr(begin, end - begin);
    if (component.empty() || component == "." || component == "..") return false;
    if (component.size() > kFileNameSizeMax) return false;
    if (begin == 0 && (component == ".primary" || component == ".lag")) return false;
    begin = end + 1;
  }
  return true;
}

absl::Status CheckEntryFields(const LogEntry& entry) {
  if (entry.index.value == 0) return absl::InvalidArgumentError("index 0");
  if (entry.term.value == 0) return absl::InvalidArgumentError("term 0");
  if (entry.payload_size > kPayloadSizeMax) {
    return absl::InvalidArgumentError(
        fmt::format("payload of {} bytes is larger than {}", entry.payload_size, kPayloadSizeMax));
  }
  if (entry.wal.begin_offset > entry.wal.end_offset) {
    return absl::InvalidArgumentError("the place in the WAL ends before it begins");
  }
  return CheckKindFields(entry);
}

std::string EncodeEntryHeader(const LogEntry& entry) {
  ECHOFS_CHECK(entry.database.size() <= kDatabaseNameSizeMax);
  std::string record(kRecordHeaderSize + entry.database.size(), '\0');
  auto* p = reinterpret_cast<std::uint8_t*>(record.data());
  std::memcpy(p, kMagic, sizeof(kMagic));
  p[4] = static_cast<std::uint8_t>(entry.kind);
  StoreBe16(p + 6, static_cast<std::uint16_t>(entry.database.size()));
  StoreBe64(p + 8, entry.index.value);
  StoreBe64(p + 16, entry.term.value);
  StoreBe64(p + 24, entry.txid.value);
  StoreBe64(p + 32, entry.digest_before);
  StoreBe64(p + 40, entry.digest_after);
  StoreBe32(p + 48, entry.page_size);
  StoreBe32(p + 52, entry.page_count);
  StoreBe32(p + 56, entry.attributes.mode);
  StoreBe32(p + 60, entry.attributes.uid);
  StoreBe32(p + 64, entry.attributes.gid);
  StoreBe64(p + 72, entry.payload_size);
  StoreBe64(p + 80, static_cast<std::uint64_t>(entry.timestamp_ms));
  StoreBe32(p + 88, entry.wal.salt1);
  StoreBe32(p + 92, entry.wal.salt2);
  StoreBe64(p + 96, entry.wal.begin_offset);
  StoreBe64(p + 104, entry.wal.end_offset);
  std::memcpy(p + kRecordHeaderSize, entry.database.data(), entry.database.size());
  StoreBe64(p + kChecksumOffset, HeaderChecksum(p, entry.database.size()));
  return record;
}

absl::StatusOr<LogEntry> DecodeEntryHeader(ByteView bytes) {
  const std::uint8_t* p = bytes.data();
  if (bytes.size() < kRecordHeaderSize) {
    return absl::OutOfRangeError(
        fmt::format("a record header has {} bytes, {} are here", kRecordHeaderSize, bytes.size()));
  }
  if (std::memcmp(p, kMagic, sizeof(kMagic)) != 0) {
    return absl::DataLossError("no record starts here");
  }
  const std::size_t name_size = LoadBe16(p + 6);
  if (name_size > kDatabaseNameSizeMax) {
    return absl::DataLossError(fmt::format("impossible size {} of a name", name_size));
  }
  if (bytes.size() < kRecordHeaderSize + name_size) {
    return absl::OutOfRangeError("the name of the database is not here yet");
  }
  if (HeaderChecksum(p, name_size) != LoadBe64(p + kChecksumOffset)) {
    return absl::DataLossError("wrong checksum of the record header");
  }
  LogEntry entry = LoadFields(p);
  entry.database = AsText(bytes.subspan(kRecordHeaderSize, name_size));
  if (p[5] != 0 || LoadBe32(p + 68) != 0) {
    return absl::DataLossError("reserved bytes of the record header are not zero");
  }
  if (const absl::Status status = CheckEntryFields(entry); !status.ok()) {
    return absl::DataLossError(status.message());
  }
  return entry;
}

PayloadChecksum::PayloadChecksum() : state_(XXH3_createState()) {
  ECHOFS_CHECK(state_ != nullptr);
  XXH3_64bits_reset(static_cast<XXH3_state_t*>(state_));
}

PayloadChecksum::~PayloadChecksum() { XXH3_freeState(static_cast<XXH3_state_t*>(state_)); }

void PayloadChecksum::Add(ByteView bytes) {
  if (bytes.empty()) return;
  XXH3_64bits_update(static_cast<XXH3_state_t*>(state_), bytes.data(), bytes.size());
}

std::uint64_t PayloadChecksum::Value() const {
  return XXH3_64bits_digest(static_cast<const XXH3_state_t*>(state_));
}

std::uint64_t PayloadChecksum::Of(ByteView payload) {
  return XXH3_64bits(payload.data(), payload.size());
}

}  // namespace echofs
