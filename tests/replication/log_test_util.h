// Entries for tests of the log, and short ways to read it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "replication/change_log.h"
#include "tests/catch.h"

namespace echofs {

// The payload of the change set with this TXID: other bytes for each, of the given size.
inline std::vector<std::uint8_t> TestPayload(std::uint64_t txid, std::size_t size) {
  std::vector<std::uint8_t> payload(size);
  std::uint64_t state = txid * 0x9e3779b97f4a7c15u + size;
  for (std::uint8_t& byte : payload) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    byte = static_cast<std::uint8_t>(state >> 56);
  }
  return payload;
}

inline std::uint64_t TestDigest(std::uint64_t txid) { return txid == 0 ? 0 : txid * 1000003; }

inline LogEntry TestOpenTerm(std::uint64_t term) {
  LogEntry entry;
  entry.kind = EntryKind::kOpenTerm;
  entry.term = {term};
  return entry;
}

// The change set number `txid` of a database that was never dropped.
inline LogEntry TestChange(const std::string& database, std::uint64_t txid,
                           std::uint64_t term = 1) {
  LogEntry entry;
  entry.kind = EntryKind::kChangeSet;
  entry.term = {term};
  entry.database = database;
  entry.txid = {txid};
  entry.digest_before = TestDigest(txid - 1);
  entry.digest_after = TestDigest(txid);
  entry.page_size = 4096;
  entry.page_count = static_cast<std::uint32_t>(txid);
  entry.attributes = {0640, 1, 2};
  entry.timestamp_ms = 1700000000000 + static_cast<std::int64_t>(txid);
  entry.wal = {3, 4, 32, 32 + 4120};
  return entry;
}

inline LogEntry TestDrop(const std::string& database, std::uint64_t txid, std::uint64_t term = 1) {
  LogEntry entry;
  entry.kind = EntryKind::kDrop;
  entry.term = {term};
  entry.database = database;
  entry.txid = {txid};
  entry.digest_before = TestDigest(txid - 1);
  return entry;
}

inline absl::StatusOr<std::vector<std::uint8_t>> ReadAll(ByteSource& source) {
  std::vector<std::uint8_t> all;
  std::uint8_t piece[1000];
  for (;;) {
    absl::StatusOr<std::size_t> n = source.Read(piece);
    if (!n.ok()) return n.status();
    if (*n == 0) return all;
    all.insert(all.end(), piece, piece + *n);
  }
}

// The message of a status, to be read by people, has these words in it.
inline void CheckSays(const absl::Status& status, const std::string& words) {
  INFO(status.ToString());
  CHECK(status.ToString().find(words) != std::string::npos);
}

inline std::unique_ptr<ChangeLog> OpenLog(const std::string& directory,
                                          const ChangeLogOptions& options = {}) {
  absl::StatusOr<std::unique_ptr<ChangeLog>> log = ChangeLog::Open(directory, options);
  INFO(log.status().ToString());
  REQUIRE(log.ok());
  return *std::move(log);
}

// Appends change sets `from` to `to` of a database, each with a payload of `size` bytes.
inline void AppendChanges(ChangeLog& log, const std::string& database, std::uint64_t from,
                          std::uint64_t to, std::size_t size, std::uint64_t term = 1) {
  for (std::uint64_t txid = from; txid <= to; ++txid) {
    const absl::StatusOr<LogIndex> index =
        log.Append(TestChange(database, txid, term), TestPayload(txid, size));
    INFO(index.status().ToString());
    REQUIRE(index.ok());
  }
}

// Reads the log from `from` to its end and checks indices and payloads of change sets. Returns the
// number of entries.
inline std::uint64_t CheckLog(const ChangeLog& log, LogIndex from) {
  const std::unique_ptr<LogReader> reader = log.Read(from);
  std::uint64_t count = 0;
  for (;;) {
    const absl::StatusOr<std::optional<LogEntry>> entry = reader->Next();
    INFO(entry.status().ToString());
    REQUIRE(entry.ok());
    if (!entry->has_value()) break;
    REQUIRE((*entry)->index.value == from.value + count);
    if ((*entry)->kind == EntryKind::kChangeSet) {
      const auto payload = ReadAll(*reader->Payload());
      INFO(payload.status().ToString());
      REQUIRE(payload.ok());
      REQUIRE(*payload == TestPayload((*entry)->txid.value, (*entry)->payload_size));
    }
    ++count;
  }
  CHECK(from.value + count == log.last_index().value + 1);
  return count;
}

}  // namespace echofs
