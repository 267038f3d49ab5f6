#include "fs/sqlite_format.h"

#include <algorithm>
#include <cstring>

#include "replication/status_macros.h"

namespace echofs::sqlite {
namespace {

constexpr char kMagic[kMagicSize + 1] = "SQLite format 3";  // with its terminating zero
constexpr std::uint8_t kJournalMagic[8] = {0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7};

std::uint32_t LoadLe32(const std::uint8_t* p) {
  return std::uint32_t{p[3]} << 24 | std::uint32_t{p[2]} << 16 | std::uint32_t{p[1]} << 8 | p[0];
}

template <std::uint32_t (*Load)(const std::uint8_t*)>
WalChecksum Continue(WalChecksum sum, ByteView bytes) {
  std::uint32_t s0 = sum.s0;
  std::uint32_t s1 = sum.s1;
  for (std::size_t i = 0; i < bytes.size(); i += 8) {
    s0 += Load(bytes.data() + i) + s1;
    s1 += Load(bytes.data() + i + 4) + s0;
  }
  return {s0, s1};
}

bool EndsWith(std::string_view name, std::string_view suffix) {
  return name.size() > suffix.size() && name.substr(name.size() - suffix.size()) == suffix;
}

bool IsHexDigit(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

}  // namespace

bool HasDatabaseMagic(ByteView bytes) {
  return bytes.size() >= kMagicSize && std::memcmp(bytes.data(), kMagic, kMagicSize) == 0;
}

std::optional<DatabaseHeader> ParseDatabaseHeader(ByteView bytes) {
  if (bytes.size() < kDatabaseHeaderSize || !HasDatabaseMagic(bytes)) return std::nullopt;
  DatabaseHeader header;
  const std::uint32_t size = LoadBe16(bytes.data() + 16);
  header.page_size = size == 1 ? 65536 : size;
  if (!IsValidPageSize(header.page_size)) return std::nullopt;
  header.wal_mode = bytes[19] == 2;
  header.change_counter = LoadBe32(bytes.data() + 24);
  header.page_count = LoadBe32(bytes.data() + 28);
  header.page_count_valid =
      header.page_count != 0 && header.change_counter == LoadBe32(bytes.data() + 92);
  header.freelist_count = LoadBe32(bytes.data() + 36);
  return header;
}

WalChecksum ContinueWalChecksum(WalChecksum sum, ByteView bytes, bool big_endian) {
  ECHOFS_CHECK(bytes.size() % 8 == 0);
  return big_endian ? Continue<LoadBe32>(sum, bytes) : Continue<LoadLe32>(sum, bytes);
}

std::optional<WalHeader> ParseWalHeader(ByteView bytes) {
  if (bytes.size() < kWalHeaderSize) return std::nullopt;
  const std::uint32_t magic = LoadBe32(bytes.data());
  if (magic != kWalMagicLittleEndian && magic != kWalMagicBigEndian) return std::nullopt;
  if (LoadBe32(bytes.data() + 4) != kWalVersion) return std::nullopt;
  WalHeader header;
  header.big_endian_checksum = magic == kWalMagicBigEndian;
  header.page_size = LoadBe32(bytes.data() + 8);
  header.checkpoint_sequence = LoadBe32(bytes.data() + 12);
  header.salt1 = LoadBe32(bytes.data() + 16);
  header.salt2 = LoadBe32(bytes.data() + 20);
  header.checksum = {LoadBe32(bytes.data() + 24), LoadBe32(bytes.data() + 28)};
  if (!IsValidPageSize(header.page_size)) return std::nullopt;
  if (ContinueWalChecksum({}, bytes.first(24), header.big_endian_checksum) != header.checksum) {
    return std::nullopt;
  }
  return header;
}

void EncodeWalHeader(WalHeader* header, MutableByteView out) {
  ECHOFS_CHECK(out.size() >= kWalHeaderSize);
  StoreBe32(out.data(), header->big_endian_checksum ? kWalMagicBigEndian : kWalMagicLittleEndian);
  StoreBe32(out.data() + 4, kWalVersion);
  StoreBe32(out.data() + 8, header->page_size);
  StoreBe32(out.data() + 12, header->checkpoint_sequence);
  StoreBe32(out.data() + 16, header->salt1);
  StoreBe32(out.data() + 20, header->salt2);
  header->checksum = ContinueWalChecksum({}, out.first(24), header->big_endian_checksum);
  StoreBe32(out.data() + 24, header->checksum.s0);
  StoreBe32(out.data() + 28, header->checksum.s1);
}

FrameHeader ParseFrameHeader(ByteView bytes) {
  ECHOFS_CHECK(bytes.size() >= kFrameHeaderSize);
  return {LoadBe32(bytes.data()),
          LoadBe32(bytes.data() + 4),
          LoadBe32(bytes.data() + 8),
          LoadBe32(bytes.data() + 12),
          {LoadBe32(bytes.data() + 16), LoadBe32(bytes.data() + 20)}};
}

void EncodeFrameHeader(const FrameHeader& header, MutableByteView out) {
  ECHOFS_CHECK(out.size() >= kFrameHeaderSize);
  StoreBe32(out.data(), header.page);
  StoreBe32(out.data() + 4, header.commit_page_count);
  StoreBe32(out.data() + 8, header.salt1);
  StoreBe32(out.data() + 12, header.salt2);
  StoreBe32(out.data() + 16, header.checksum.s0);
  StoreBe32(out.data() + 20, header.checksum.s1);
}

WalChecksum FrameChecksum(WalChecksum previous, ByteView header_bytes, ByteView page,
                          bool big_endian) {
  return ContinueWalChecksum(ContinueWalChecksum(previous, header_bytes.first(8), big_endian), page,
                             big_endian);
}

WalIndexSummary ParseWalIndexSummary(ByteView bytes) {
  WalIndexSummary summary;
  if (bytes.size() < kWalIndexHeadersSize) return summary;
  summary.initialized = bytes[12] != 0;
  // The wal-index is in native byte order; the salts are copied as they stand in the WAL.
  std::memcpy(&summary.max_frame, bytes.data() + 16, sizeof(summary.max_frame));
  summary.salt1 = LoadBe32(bytes.data() + 32);
  summary.salt2 = LoadBe32(bytes.data() + 36);
  return summary;
}

bool HasJournalMagic(ByteView bytes) {
  return bytes.size() >= sizeof(kJournalMagic) &&
         std::memcmp(bytes.data(), kJournalMagic, sizeof(kJournalMagic)) == 0;
}

std::optional<JournalHeader> ParseJournalHeader(ByteView bytes) {
  if (bytes.size() < kJournalHeaderSize || !HasJournalMagic(bytes)) return std::nullopt;
  JournalHeader header;
  header.record_count = LoadBe32(bytes.data() + 8);
  header.nonce = LoadBe32(bytes.data() + 12);
  header.page_count = LoadBe32(bytes.data() + 16);
  header.sector_size = LoadBe32(bytes.data() + 20);
  header.page_size = LoadBe32(bytes.data() + 24);
  if (!IsValidPageSize(header.page_size)) return std::nullopt;
  if (header.sector_size < 32 || header.sector_size > 65536 ||
      (header.sector_size & (header.sector_size - 1)) != 0) {
    return std::nullopt;
  }
  return header;
}

std::uint32_t JournalPageChecksum(std::uint32_t nonce, ByteView page) {
  std::uint32_t sum = nonce;
  for (std::int64_t i = static_cast<std::int64_t>(page.size()) - 200; i > 0; i -= 200)
    sum += page[i];
  return sum;
}

FileName ClassifyFileName(std::string_view name) {
  if (EndsWith(name, kJournalSuffix)) {
    return {FileRole::kJournal, name.substr(0, name.size() - kJournalSuffix.size())};
  }
  if (EndsWith(name, kWalSuffix)) {
    return {FileRole::kWal, name.substr(0, name.size() - kWalSuffix.size())};
  }
  if (EndsWith(name, kShmSuffix)) {
    return {FileRole::kShm, name.substr(0, name.size() - kShmSuffix.size())};
  }
  constexpr std::size_t kSuperSuffixSize = 3 + 9;  // "-mj" and nine hex digits
  if (name.size() > kSuperSuffixSize) {
    const std::string_view suffix = name.substr(name.size() - kSuperSuffixSize);
    if (suffix.substr(0, 3) == "-mj" && std::all_of(suffix.begin() + 3, suffix.end(), IsHexDigit)) {
      return {FileRole::kSuperJournal, name.substr(0, name.size() - kSuperSuffixSize)};
    }
  }
  return {FileRole::kMain, name};
}

}  // namespace echofs::sqlite
