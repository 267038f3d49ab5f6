// Orphans over the commands' socket, and as files.
#include <filesystem>
#include <fstream>
#include <iterator>

#include "cmd/admin_client.h"
#include "cmd/admin_server.h"
#include "cmd/config.h"
#include "cmd/orphan_export.h"
#include "cmd/reports.h"
#include "replication/change_log.h"
#include "replication/ltx.h"
#include "tests/cmd/fake_admin_source.h"
#include "tests/cmd/test_util.h"
#include "tests/replication/bad_names.h"

namespace echofs::cmd {
namespace {

using test::HasText;

// A change set of one page, as a log entry with a real LTX file.
void Commit(ChangeLog& log, const std::string& database, Term term, std::uint8_t byte) {
  const auto position = log.Position(database);
  LogEntry entry;
  entry.term = term;
  entry.database = database;
  entry.txid = position.ok() ? position->txid.Next() : Txid{1};
  entry.digest_before = position.ok() ? position->digest : 0;
  entry.digest_after = entry.txid.value;
  entry.page_size = 65536;
  entry.page_count = 20;
  ChangeSetHeader header;
  header.page_size = entry.page_size;
  header.page_count = entry.page_count;
  header.txid = header.min_txid = entry.txid;
  std::vector<std::uint8_t> payload;
  VectorSink sink(&payload);
  auto encoder = LtxEncoder::Start(&sink, header);
  REQUIRE(encoder.ok());
  std::uint32_t random = byte;
  for (PageNumber number = 1; number <= 20; ++number) {  // more than one message
    std::vector<std::uint8_t> page(entry.page_size);
    for (std::uint8_t& b : page) {
      random = random * 1664525 + 1013904223;
      b = static_cast<std::uint8_t>(random >> 24);
    }
    REQUIRE((*encoder)->AddPage(number, page).ok());
  }
  REQUIRE((*encoder)->Finish().ok());
  REQUIRE(log.Append(entry, payload).ok());
}

void Drop(ChangeLog& log, const std::string& database, Term term) {
  LogEntry entry;
  entry.kind = EntryKind::kDrop;
  entry.term = term;
  entry.database = database;
  entry.txid = log.Position(database)->txid.Next();
  entry.digest_before = log.Position(database)->digest;
  REQUIRE(log.Append(entry, {}).ok());
}

std::vector<std::string> FilesBelow(const std::string& directory) {
  std::vector<std::string> files;
  for (const auto& file : std::filesystem::recursive_directory_iterator(directory)) {
    if (file.is_regular_file()) files.push_back(file.path().string().substr(directory.size() + 1));
  }
  std::sort(files.begin(), files.end());
  return files;
}

TEST_CASE("orphans: listed, exported as LTX files, discarded") {
  const test::TempDir dir;
  auto log = ChangeLog::Open(dir.path() + "/log", {});
  REQUIRE(log.ok());
  for (std::uint8_t i = 1; i <= 3; ++i) Commit(**log, "app.db", {1}, i);
  Commit(**log, "sub/b.db", {1}, 4);
  Drop(**log, "sub/b.db", {1});
  auto store = OrphanStore::Open(PosixStorage(), dir.path() + "/orphans");
  REQUIRE(store.ok());
  REQUIRE((*store)->Keep(**log, {true, {1}, {1}}, "b", {2}).ok());

  test::FakeAdminSource source;
  source.orphans = store->get();
  const auto server = AdminServer::Start(AdminSocketPath(dir.path()), &source);
  REQUIRE(server.ok());
  const auto client = AdminClient::Connect(dir.path());
  REQUIRE(client.ok());
  const auto list = (*client)->Orphans();
  REQUIRE(list.ok());
  REQUIRE(list->size() == 1);
  const OrphanInfo& info = list->front();
  CHECK(info.id == "1-2-5");
  CHECK(info.change_sets == 4);
  CHECK(info.common.index == LogIndex{1});
  CHECK(info.primary == "b");
  CHECK(info.databases == std::map<std::string, std::uint64_t>{{"app.db", 2}, {"sub/b.db", 2}});
  CHECK_THAT(OrphansText(*list), HasText("app.db (2), sub/b.db (2)"));
  CHECK_THAT(OrphansText({}), HasText("no orphans"));
  CHECK_THAT(OrphansJson(*list), HasText("\"sub/b.db\": 2"));

  const std::string to = dir.path() + "/out";
  OrphanExport files(to);
  const auto add = [&](const AdminClient::OrphanPiece& piece) { return files.Add(piece); };
  REQUIRE((*client)->ExportOrphans("1-2-5", add).ok());
  REQUIRE(files.Finish().ok());
  CHECK(files.count() == 4);
  const std::vector<std::string> expected = {"app.db/0000000000000002-0000000000000002.ltx",
                                             "app.db/0000000000000003-0000000000000003.ltx",
                                             "sub/b.db/0000000000000001-0000000000000001.ltx",
                                             "sub/b.db/0000000000000002-0000000000000002.drop"};
  CHECK(FilesBelow(to) == expected);
  std::ifstream file(to + "/" + expected[1], std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  ViewSource ltx(AsBytes(bytes));
  const auto decoder = LtxDecoder::Start(&ltx);
  REQUIRE(decoder.ok());
  CHECK((*decoder)->header().txid == Txid{3});
  int pages = 0;
  for (auto page = (*decoder)->Next(); page.ok() && page->has_value(); page = (*decoder)->Next()) {
    ++pages;
  }
  CHECK(pages == 20);

  // Nothing is overwritten.
  OrphanExport again(to);
  const absl::Status exists = (*client)->ExportOrphans(
      "1-2-5", [&](const AdminClient::OrphanPiece& piece) { return again.Add(piece); });
  CHECK(absl::IsAlreadyExists(exists));
  CHECK(absl::IsNotFound((*client)->ExportOrphans("1-2-6", add)));
  CHECK(absl::IsNotFound((*client)->ExportOrphans("../log", add)));
  CHECK(absl::IsNotFound((*client)->DiscardOrphans("7-7-7").status()));
  CHECK((*client)->DiscardOrphans("1-2-5").value() == 1);
  CHECK((*client)->Orphans()->empty());
  CHECK((*client)->DiscardOrphans("").value() == 0);
  CHECK((*store)->change_sets() == 0);
}

TEST_CASE("orphans: what a node names is not written outside the directory") {
  const test::TempDir dir;
  const std::string to = dir.path() + "/out";
  for (const auto& [what, name] : BadDatabaseNames()) {
    INFO(what);
    OrphanExport files(to);
    AdminClient::OrphanPiece piece;
    piece.begin = true;
    piece.database = name;
    piece.txid = {1};
    CHECK(absl::IsDataLoss(files.Add(piece)));
  }
  CHECK_FALSE(std::filesystem::exists(to));
  // Links above the directory are the user's own, below it there are to be none.
  std::filesystem::create_directories(dir.path() + "/real");
  std::filesystem::create_directory_symlink(dir.path() + "/real", dir.path() + "/link");
  std::filesystem::create_directory_symlink(dir.path(), dir.path() + "/real/b.db");
  OrphanExport files(dir.path() + "/link");
  AdminClient::OrphanPiece piece;
  piece.begin = true;
  piece.database = "a.db";
  piece.txid = {1};
  CHECK(files.Add(piece).ok());
  piece.database = "b.db";
  CHECK_FALSE(files.Add(piece).ok());
  CHECK(FilesBelow(dir.path() + "/real").size() == 1);
}

}  // namespace
}  // namespace echofs::cmd
