#include "fs/change_stream.h"

#include <map>

#include "replication/digest.h"
#include "tests/catch.h"

namespace echofs::fs {
namespace {

constexpr std::uint32_t kPageSize = 512;

std::vector<std::uint8_t> Page(std::uint8_t fill) {
  return std::vector<std::uint8_t>(kPageSize, fill);
}

// An LTX file with the given pages.
std::vector<std::uint8_t> Ltx(std::uint32_t page_count,
                              const std::map<PageNumber, std::uint8_t>& pages) {
  ChangeSetHeader header;
  header.page_size = kPageSize;
  header.page_count = page_count;
  header.txid = header.min_txid = Txid{2};
  std::vector<std::uint8_t> bytes;
  VectorSink sink(&bytes);
  auto encoder = *LtxEncoder::Start(&sink, header);
  for (const auto& [number, fill] : pages) REQUIRE(encoder->AddPage(number, Page(fill)).ok());
  REQUIRE(encoder->Finish().ok());
  return bytes;
}

LogEntry Entry(std::uint32_t page_count) {
  LogEntry entry;
  entry.txid = Txid{2};
  entry.page_size = kPageSize;
  entry.page_count = page_count;
  return entry;
}

// Pages 1..count, filled with their numbers.
BaseState Base(std::uint32_t count) {
  BaseState base;
  base.page_size = kPageSize;
  base.page_count = count;
  for (PageNumber n = 1; n <= count; ++n) base.digest += PageHash(n, Page(n));
  base.read = [](PageNumber n, MutableByteView out) {
    std::fill(out.begin(), out.end(), static_cast<std::uint8_t>(n));
    return absl::OkStatus();
  };
  return base;
}

std::map<PageNumber, std::uint8_t> Drain(ChangeStream& stream) {
  std::map<PageNumber, std::uint8_t> pages;
  PageNumber last = 0;
  while (true) {
    const auto page = stream.Next();
    REQUIRE(page.ok());
    if (!*page) return pages;
    CHECK((*page)->number > last);
    last = (*page)->number;
    pages[last] = (*page)->content[0];
  }
}

std::uint64_t DigestOfFills(const std::vector<std::uint8_t>& fills) {
  std::uint64_t digest = 0;
  for (std::size_t i = 0; i < fills.size(); ++i) digest += PageHash(i + 1, Page(fills[i]));
  return digest;
}

}  // namespace

TEST_CASE("the digest follows changed, added and removed pages (C8)") {
  const LogEntry entry = Entry(4);
  const auto ltx = Ltx(4, {{1, 100}, {3, 101}});
  ViewSource source(ltx);
  auto stream = OpenChangeSet(entry, &source, Base(6));
  REQUIRE(stream.ok());
  CHECK(Drain(**stream) == std::map<PageNumber, std::uint8_t>{{1, 100}, {3, 101}});
  CHECK((*stream)->digest() == DigestOfFills({100, 2, 101, 4}));
}

TEST_CASE("pages by which a database grows and that the change set lacks are written as zeros") {
  const LogEntry entry = Entry(7);
  const auto ltx = Ltx(7, {{1, 100}, {5, 105}});
  ViewSource source(ltx);
  auto stream = OpenChangeSet(entry, &source, Base(3));
  REQUIRE(stream.ok());
  CHECK(Drain(**stream) ==
        std::map<PageNumber, std::uint8_t>{{1, 100}, {4, 0}, {5, 105}, {6, 0}, {7, 0}});
  CHECK((*stream)->digest() == DigestOfFills({100, 2, 3, 0, 105, 0, 0}));
}

TEST_CASE("a change set that makes the database absurdly large is refused") {
  const LogEntry entry = Entry(0xfffffff0);
  const auto ltx = Ltx(0xfffffff0, {{1, 100}});
  ViewSource source(ltx);
  auto stream = OpenChangeSet(entry, &source, Base(3));
  REQUIRE(stream.ok());
  absl::Status status;
  while (status.ok()) status = (*stream)->Next().status();
  CHECK(absl::IsDataLoss(status));
}

TEST_CASE("a change set that is not the entry's is refused") {
  const auto ltx = Ltx(4, {{1, 100}});
  LogEntry entry = Entry(5);
  ViewSource source(ltx);
  CHECK(absl::IsDataLoss(OpenChangeSet(entry, &source, Base(3)).status()));
}

}  // namespace echofs::fs
