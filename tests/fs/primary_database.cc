#include "tests/fs/primary_database.h"

#include <algorithm>

#include "fs/sqlite_format.h"
#include "replication/digest.h"
#include "replication/ltx.h"
#include "replication/status_macros.h"

namespace echofs::fs {
namespace {

ByteView PageOf(const std::vector<std::uint8_t>& image, std::uint32_t page_size, std::size_t n) {
  const std::size_t begin = (n - 1) * page_size;
  if (begin + page_size > image.size()) return {};
  return ByteView(image).subspan(begin, page_size);
}

}  // namespace

PrimaryDatabase::PrimaryDatabase(const std::string& path, const std::string& setup) {
  ECHOFS_CHECK(sqlite3_open(path.c_str(), &database_) == SQLITE_OK);
  Exec("PRAGMA synchronous=OFF");
  Exec(setup);
  position_.name = "test.db";
}

PrimaryDatabase::~PrimaryDatabase() { sqlite3_close(database_); }

void PrimaryDatabase::Exec(const std::string& sql) {
  char* error = nullptr;
  if (sqlite3_exec(database_, sql.c_str(), nullptr, nullptr, &error) != SQLITE_OK) {
    std::fprintf(stderr, "%s: %s\n", sql.c_str(), error);
    std::abort();
  }
}

std::vector<std::uint8_t> PrimaryDatabase::Serialize() const {
  sqlite3_int64 size = 0;
  unsigned char* bytes = sqlite3_serialize(database_, "main", &size, 0);
  ECHOFS_CHECK(bytes != nullptr || size == 0);
  std::vector<std::uint8_t> image(bytes, bytes + size);
  sqlite3_free(bytes);
  return image;
}

std::uint32_t PrimaryDatabase::page_size() const { return position_.page_size; }
std::uint32_t PrimaryDatabase::page_count() const { return position_.page_count; }

Change PrimaryDatabase::Capture() {
  const std::vector<std::uint8_t> now = Serialize();
  const auto header = sqlite::ParseDatabaseHeader(now);
  ECHOFS_CHECK(header.has_value());
  const std::uint32_t page_size = header->page_size;
  const auto page_count = static_cast<std::uint32_t>(now.size() / page_size);
  const bool same_size = page_size == position_.page_size;

  Change change;
  LogEntry& entry = change.entry;
  entry.kind = EntryKind::kChangeSet;
  entry.index = position_.index.Next();
  entry.term = {1};
  entry.database = position_.name;
  entry.txid = position_.txid.Next();
  entry.digest_before = position_.digest;
  entry.page_size = page_size;
  entry.page_count = page_count;
  entry.attributes = position_.attributes;

  std::uint64_t digest = same_size ? position_.digest : 0;
  std::vector<PageNumber> changed;
  const std::size_t old_count = same_size ? image_.size() / page_size : 0;
  for (std::size_t n = 1; n <= std::max<std::size_t>(page_count, old_count); ++n) {
    if (n == LockPage(page_size)) continue;
    const ByteView before = same_size ? PageOf(image_, page_size, n) : ByteView();
    const ByteView after = PageOf(now, page_size, n);
    if (std::equal(before.begin(), before.end(), after.begin(), after.end())) continue;
    if (!before.empty()) digest -= PageHash(n, before);
    if (!after.empty()) digest += PageHash(n, after);
    if (!after.empty()) changed.push_back(static_cast<PageNumber>(n));
  }
  entry.digest_after = digest;

  ChangeSetHeader ltx;
  ltx.page_size = page_size;
  ltx.page_count = page_count;
  ltx.txid = ltx.min_txid = entry.txid;
  ltx.term = entry.term;
  ltx.digest_after = digest;
  VectorSink sink(&change.payload);
  auto encoder = LtxEncoder::Start(&sink, ltx);
  ECHOFS_CHECK(encoder.ok());
  for (const PageNumber n : changed) {
    ECHOFS_CHECK((*encoder)->AddPage(n, PageOf(now, page_size, n)).ok());
  }
  ECHOFS_CHECK((*encoder)->Finish().ok());
  entry.payload_size = change.payload.size();

  image_ = now;
  position_.index = entry.index;
  position_.txid = entry.txid;
  position_.digest = digest;
  position_.page_size = page_size;
  position_.page_count = page_count;
  position_.dropped = false;
  return change;
}

Change PrimaryDatabase::Drop() {
  Change change;
  change.entry.kind = EntryKind::kDrop;
  change.entry.index = position_.index.Next();
  change.entry.term = {1};
  change.entry.database = position_.name;
  change.entry.txid = position_.txid.Next();
  change.entry.digest_before = position_.digest;
  position_.index = change.entry.index;
  position_.txid = change.entry.txid;
  position_.digest = 0;
  position_.page_size = 0;
  position_.page_count = 0;
  position_.dropped = true;
  image_.clear();
  return change;
}

std::uint64_t DigestOf(const std::vector<std::uint8_t>& image, std::uint32_t page_size) {
  std::uint64_t digest = 0;
  for (std::size_t n = 1; n <= image.size() / page_size; ++n) {
    if (n != LockPage(page_size)) {
      digest += PageHash(static_cast<PageNumber>(n), PageOf(image, page_size, n));
    }
  }
  return digest;
}

}  // namespace echofs::fs
