#include "replication/log_entry.h"

#include <string>

#include "replication/log_catalog.h"
#include "tests/catch.h"
#include "tests/replication/bad_names.h"
#include "tests/replication/log_test_util.h"

namespace echofs {

TEST_CASE("names of databases stay in the data directory and mean nothing else") {
  for (const char* name : {"a", "a.db", "dir/sub/a.db", "-wal", "a-wal.db", "..a", "a..",
                           ".primary2", "dir/.primary", ".hidden/x", "a b\n"}) {
    INFO(name);
    CHECK(IsValidDatabaseName(name));
  }
  for (const std::string& name :
       {std::string(""),
        std::string("/a"),
        std::string("a/"),
        std::string("a//b"),
        std::string("."),
        std::string(".."),
        std::string("../a"),
        std::string("a/../b"),
        std::string("a/."),
        std::string("a\0b", 3),
        std::string("a-journal"),
        std::string("dir/a-wal"),
        std::string("a-shm"),
        std::string("a-pos"),
        std::string(".primary"),
        std::string(".lag"),
        std::string(".primary/a"),
        std::string(".lag/a"),
        std::string(256, 'x'),
        "a/" + std::string(256, 'x') + "/b",
        std::string(250, 'x') + "/" + std::string(250, 'x') + "/" + std::string(250, 'x') + "/" +
            std::string(250, 'x') + "/" + std::string(21, 'x')}) {
    INFO(name);
    CHECK_FALSE(IsValidDatabaseName(name));
  }
  CHECK(IsValidDatabaseName(std::string(255, 'x')));
  const std::string component(255, 'x');
  CHECK(IsValidDatabaseName(component + "/" + component + "/" + component + "/" + component));
}

TEST_CASE("an entry with a name that no database may have is not read, from wherever it comes") {
  for (const auto& [what, name] : BadDatabaseNames()) {
    INFO(what);
    LogEntry entry = TestChange("app.db", 1, 9);
    entry.index = {1};
    entry.term = {1};
    entry.database = name;
    const std::string record = EncodeEntryHeader(entry);
    CHECK(absl::IsDataLoss(DecodeEntryHeader(AsBytes(record)).status()));
    DatabasePosition position;
    position.name = name;
    CHECK(absl::IsInvalidArgument(LogCatalog::FromPositions({position}).status()));
  }
}

TEST_CASE("all fields of an entry survive encoding") {
  LogEntry entry = TestChange("dir/app.db", 77, 9);
  entry.index = {1234567};
  entry.payload_size = 98765;
  const std::string bytes = EncodeEntryHeader(entry);
  CHECK(bytes.size() == kRecordHeaderSize + entry.database.size());
  const auto decoded = DecodeEntryHeader(AsBytes(bytes));
  REQUIRE(decoded.ok());
  CHECK(decoded->kind == entry.kind);
  CHECK(decoded->index == entry.index);
  CHECK(decoded->term == entry.term);
  CHECK(decoded->database == entry.database);
  CHECK(decoded->txid == entry.txid);
  CHECK(decoded->digest_before == entry.digest_before);
  CHECK(decoded->digest_after == entry.digest_after);
  CHECK(decoded->page_size == entry.page_size);
  CHECK(decoded->page_count == entry.page_count);
  CHECK(decoded->attributes == entry.attributes);
  CHECK(decoded->payload_size == entry.payload_size);
  CHECK(decoded->timestamp_ms == entry.timestamp_ms);
  CHECK(decoded->wal == entry.wal);
}

TEST_CASE("a record header that is short, damaged or impossible is not decoded") {
  LogEntry entry = TestChange("dir/app.db", 77, 9);
  entry.index = {1};
  const std::string bytes = EncodeEntryHeader(entry);
  for (std::size_t n = 0; n < bytes.size(); ++n) {
    CHECK(DecodeEntryHeader(AsBytes(bytes).first(n)).status().code() ==
          absl::StatusCode::kOutOfRange);
  }
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    std::string damaged = bytes;
    damaged[i] = static_cast<char>(damaged[i] ^ 1);
    CHECK_FALSE(DecodeEntryHeader(AsBytes(damaged)).ok());
  }
  const auto impossible = [](LogEntry bad) {
    CHECK(DecodeEntryHeader(AsBytes(EncodeEntryHeader(bad))).status().code() ==
          absl::StatusCode::kDataLoss);
  };
  LogEntry bad = entry;
  bad.database = "../x";
  impossible(bad);
  bad = entry;
  bad.page_size = 1000;
  impossible(bad);
  bad = entry;
  bad.payload_size = kPayloadSizeMax + 1;
  impossible(bad);
  bad = entry;
  bad.kind = static_cast<EntryKind>(9);
  impossible(bad);
  bad = entry;
  bad.kind = EntryKind::kDrop;
  impossible(bad);
}

TEST_CASE("the checksum of a payload does not depend on its pieces") {
  const auto payload = TestPayload(1, 5000);
  PayloadChecksum checksum;
  checksum.Add(ByteView(payload).first(17));
  checksum.Add({});
  checksum.Add(ByteView(payload).subspan(17));
  CHECK(checksum.Value() == PayloadChecksum::Of(payload));
  CHECK(checksum.Value() != PayloadChecksum::Of(ByteView(payload).first(4999)));
}

}  // namespace echofs
