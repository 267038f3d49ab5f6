// LTX files (L1): against bytes that Litestream wrote, and against damage.
#include "replication/ltx.h"

#include <lz4frame.h>

#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "replication/crc64.h"
#include "replication/digest.h"
#include "tests/catch.h"

namespace echofs {
namespace {

using Bytes = std::vector<std::uint8_t>;
using Pages = std::map<PageNumber, Bytes>;

Bytes ReadTestFile(const std::string& name) {
  std::ifstream file(std::string(ECHOFS_TEST_DATA_DIR) + "/ltx/" + name, std::ios::binary);
  REQUIRE(file.good());
  return Bytes(std::istreambuf_iterator<char>(file), {});
}

struct Decoded {
  absl::Status status;
  ChangeSetHeader header;
  Pages pages;
};

Decoded Decode(ByteView bytes) {
  Decoded result;
  ViewSource source(bytes);
  auto decoder = LtxDecoder::Start(&source);
  if (!decoder.ok()) {
    result.status = decoder.status();
    return result;
  }
  result.header = (*decoder)->header();
  for (;;) {
    const auto page = (*decoder)->Next();
    if (!page.ok()) {
      result.status = page.status();
      return result;
    }
    if (!page->has_value()) return result;
    result.pages[(*page)->number] = Bytes((*page)->content.begin(), (*page)->content.end());
  }
}

ChangeSetHeader TestHeader(std::uint32_t page_size, std::uint32_t page_count) {
  ChangeSetHeader header;
  header.page_size = page_size;
  header.page_count = page_count;
  header.txid = {0x1122};
  header.min_txid = {0x1122};
  header.timestamp_ms = 1234567890123;
  header.wal = {7, 8, 32, 32 + 3 * (page_size + 24)};
  header.node_id = 99;
  header.term = {5};
  header.digest_after = 0xfedcba9876543210;
  return header;
}

Bytes Encode(const ChangeSetHeader& header, const Pages& pages) {
  Bytes out;
  VectorSink sink(&out);
  auto encoder = LtxEncoder::Start(&sink, header);
  REQUIRE(encoder.ok());
  for (const auto& [number, page] : pages) REQUIRE((*encoder)->AddPage(number, page).ok());
  REQUIRE((*encoder)->Finish().ok());
  return out;
}

// Every third page is random bytes, which do not shrink; others are nearly empty.
Bytes TestPage(PageNumber number, std::size_t size) {
  Bytes page(size);
  std::uint32_t state = number;
  for (std::size_t i = 0; i < (number % 3 == 0 ? size : 40); ++i) {
    state = state * 1664525 + 1013904223;
    page[i] = static_cast<std::uint8_t>(state >> 24);
  }
  return page;
}

void CheckSame(const ChangeSetHeader& a, const ChangeSetHeader& b) {
  CHECK(a.page_size == b.page_size);
  CHECK(a.page_count == b.page_count);
  CHECK(a.txid == b.txid);
  CHECK(a.min_txid == b.min_txid);
  CHECK(a.timestamp_ms == b.timestamp_ms);
  CHECK(a.wal == b.wal);
  CHECK(a.node_id == b.node_id);
  CHECK(a.term == b.term);
  CHECK(a.digest_after == b.digest_after);
}

// A damaged file is either refused with the offset, or (when a byte of compressed data has no
// meaning) gives the same pages.
void CheckDamaged(ByteView bytes, const Pages& pages) {
  const Decoded decoded = Decode(bytes);
  if (decoded.status.ok()) {
    CHECK(decoded.pages == pages);
  } else {
    CHECK(decoded.status.code() == absl::StatusCode::kDataLoss);
    CHECK(decoded.status.ToString().find("offset ") != std::string::npos);
  }
}

}  // namespace

TEST_CASE("CRC-64/ISO of the check string, in any pieces") {
  Crc64 whole;
  whole.Add(AsBytes("123456789"));
  CHECK(whole.Value() == 0xb90956c775a41001);
  const Bytes data = TestPage(3, 1000);
  Crc64 once;
  once.Add(data);
  for (const std::size_t cut : {1, 7, 8, 9, 500, 999}) {
    Crc64 twice;
    twice.Add(ByteView(data).first(cut));
    twice.Add(ByteView(data).subspan(cut));
    CHECK(twice.Value() == once.Value());
  }
}

TEST_CASE("the CRC of long data is that of its bytes one by one") {
  const Bytes data = TestPage(3, 70000);
  Crc64 single;
  std::size_t added = 0;
  const auto check_up_to = [&](std::size_t size) {
    for (; added < size; ++added) single.Add(ByteView(data).subspan(added, 1));
    Crc64 whole;
    whole.Add(ByteView(data).first(size));
    CHECK(whole.Value() == single.Value());
  };
  for (std::size_t size = 0; size < 600; ++size) check_up_to(size);
  for (const std::size_t size : {4096, 4097, 65536, 69999}) check_up_to(size);
  Crc64 pieces;  // a long piece goes on from a short one
  pieces.Add(ByteView(data).first(13));
  pieces.Add(ByteView(data).subspan(13, 5000));
  pieces.Add(ByteView(data).subspan(5013, 69999 - 5013));
  CHECK(pieces.Value() == single.Value());
}

TEST_CASE("the hash of a page depends on its content and on its number (C8)") {
  const Bytes page = TestPage(3, 4096);
  CHECK(PageHash(1, page) != PageHash(2, page));
  CHECK(PageHash(1, page) != PageHash(1, TestPage(6, 4096)));
  // XXH3_64bits_withSeed of no bytes, from the reference implementation.
  CHECK(PageHash(0, AsBytes("")) == 0x2d06800538d394c2);
}

TEST_CASE("the files of Litestream add up to its database (L1)") {
  Bytes database;
  for (int i = 1; i <= 4; ++i) {
    const Decoded decoded = Decode(ReadTestFile(
        LtxFileName({static_cast<std::uint64_t>(i)}, {static_cast<std::uint64_t>(i)})));
    INFO(decoded.status.ToString());
    REQUIRE(decoded.status.ok());
    CHECK(decoded.header.page_size == 4096);
    CHECK(decoded.header.txid.value == static_cast<std::uint64_t>(i));
    database.resize(std::size_t{decoded.header.page_count} * 4096);
    for (const auto& [number, page] : decoded.pages) {
      std::copy(page.begin(), page.end(),
                database.begin() + static_cast<std::ptrdiff_t>((number - 1) * 4096));
    }
  }
  CHECK(database == ReadTestFile("restored.db"));
}

TEST_CASE("the place in the WAL is read from a file of Litestream") {
  const Decoded decoded = Decode(ReadTestFile(LtxFileName({2}, {2})));
  CHECK(decoded.header.wal == WalPosition{0xab64aa5f, 0x35116fdb, 0x4080, 0x4080 + 0x283c0});
}

TEST_CASE("our encoding of Litestream's pages decodes to them") {
  const Decoded theirs = Decode(ReadTestFile(LtxFileName({2}, {2})));
  const Bytes ours = Encode(theirs.header, theirs.pages);
  const Decoded again = Decode(ours);
  REQUIRE(again.status.ok());
  CHECK(again.pages == theirs.pages);
  CheckSame(again.header, theirs.header);
}

TEST_CASE("change sets of every page size survive encoding") {
  for (std::uint32_t page_size = 512; page_size <= 65536; page_size *= 2) {
    Pages pages;
    for (const PageNumber number : {1u, 2u, 3u, 9u, 300u, 70000u}) {
      pages[number] = TestPage(number, page_size);
    }
    const ChangeSetHeader header = TestHeader(page_size, 70000);
    const Decoded decoded = Decode(Encode(header, pages));
    INFO(decoded.status.ToString());
    REQUIRE(decoded.status.ok());
    CHECK(decoded.pages == pages);
    CheckSame(decoded.header, header);
  }
}

TEST_CASE("a change set without pages survives encoding") {
  const Decoded decoded = Decode(Encode(TestHeader(4096, 1), {}));
  CHECK(decoded.status.ok());
  CHECK(decoded.pages.empty());
}

TEST_CASE("the encoder refuses pages that cannot be there") {
  Bytes out;
  VectorSink sink(&out);
  const PageNumber lock_page = LockPage(65536);
  auto encoder = LtxEncoder::Start(&sink, TestHeader(65536, lock_page + 1));
  REQUIRE(encoder.ok());
  const Bytes page(65536);
  CHECK_FALSE((*encoder)->AddPage(0, page).ok());
  CHECK((*encoder)->AddPage(4, page).ok());
  CHECK_FALSE((*encoder)->AddPage(4, page).ok());
  CHECK_FALSE((*encoder)->AddPage(3, page).ok());
  CHECK_FALSE((*encoder)->AddPage(5, Bytes(512)).ok());
  CHECK_FALSE((*encoder)->AddPage(lock_page, page).ok());
  CHECK_FALSE((*encoder)->AddPage(lock_page + 2, page).ok());
  CHECK((*encoder)->AddPage(lock_page + 1, page).ok());
  CHECK_FALSE(LtxEncoder::Start(&sink, TestHeader(1000, 1)).ok());
}

TEST_CASE("frames of older writers, LZ4 frames without a size, are read") {
  constexpr std::uint32_t kPageSize = 4096;
  const Pages pages = {{1, TestPage(1, kPageSize)}, {2, TestPage(3, kPageSize)}};
  Bytes file = Encode(TestHeader(kPageSize, 2), {});
  file.resize(kLtxHeaderSize);
  Crc64 crc;
  crc.Add(file);
  Bytes index;
  const auto varint = [&index](std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) index.push_back(static_cast<std::uint8_t>(value | 0x80));
    index.push_back(static_cast<std::uint8_t>(value));
  };
  for (const auto& [number, page] : pages) {
    const std::size_t begin = file.size();
    const std::uint8_t page_header[6] = {0, 0, 0, static_cast<std::uint8_t>(number), 0, 0};
    Bytes frame(LZ4F_compressFrameBound(page.size(), nullptr));
    frame.resize(LZ4F_compressFrame(frame.data(), frame.size(), page.data(), page.size(), nullptr));
    file.insert(file.end(), page_header, page_header + 6);
    file.insert(file.end(), frame.begin(), frame.end());
    crc.Add(page_header);
    crc.Add(page);
    varint(number);
    varint(begin);
    varint(file.size() - begin);
  }
  varint(0);
  const std::size_t index_size = index.size();
  index.resize(index_size + 8 + 8);  // its size, and the post-apply checksum
  StoreBe64(index.data() + index_size, index_size);
  index.insert(index.begin(), 6, 0);
  crc.Add(index);
  file.insert(file.end(), index.begin(), index.end());
  file.resize(file.size() + 8);
  StoreBe64(file.data() + file.size() - 8, crc.Value() | 1ull << 63);

  const Decoded decoded = Decode(file);
  INFO(decoded.status.ToString());
  REQUIRE(decoded.status.ok());
  CHECK(decoded.pages == pages);
  for (std::size_t i = 0; i < file.size(); ++i) {
    Bytes damaged = file;
    damaged[i] ^= 0x21;
    CheckDamaged(damaged, pages);
    CHECK_FALSE(Decode(ByteView(file).first(i)).status.ok());
  }
}

TEST_CASE("every flipped byte and every truncation of a file is noticed, with its offset") {
  Pages pages;
  for (const PageNumber number : {2u, 3u, 8u}) pages[number] = TestPage(number, 1024);
  for (const Bytes& file :
       {Encode(TestHeader(1024, 9), pages), ReadTestFile(LtxFileName({1}, {1}))}) {
    const Pages pristine = Decode(file).pages;
    REQUIRE(Decode(file).status.ok());
    for (std::size_t i = 0; i < file.size(); ++i) {
      for (const int flip : {0x01, 0x80, 0xff}) {
        Bytes damaged = file;
        damaged[i] = static_cast<std::uint8_t>(damaged[i] ^ flip);
        CheckDamaged(damaged, pristine);
        if (i < kLtxHeaderSize) CHECK_FALSE(Decode(damaged).status.ok());
      }
      const Decoded cut = Decode(ByteView(file).first(i));
      REQUIRE_FALSE(cut.status.ok());
      CHECK(cut.status.ToString().find("offset " + std::to_string(i)) != std::string::npos);
    }
    Bytes longer = file;
    longer.push_back(0);
    CHECK_FALSE(Decode(longer).status.ok());
  }
}

TEST_CASE("the file name of a change set") {
  CHECK(LtxFileName({1}, {0xabc}) == "0000000000000001-0000000000000abc.ltx");
}

}  // namespace echofs
