#include "replication/crc64.h"

#include <array>

namespace echofs {
namespace {

constexpr std::uint64_t kPolynomial = 0xD800000000000000u;

using Table = std::array<std::uint64_t, 256>;

// tables[k][b] is the CRC of byte b followed by k zero bytes: eight bytes are folded in at once
// ("slicing by 8").
constexpr std::array<Table, 8> MakeTables() {
  std::array<Table, 8> tables = {};
  for (std::uint64_t byte = 0; byte < 256; ++byte) {
    std::uint64_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ ((crc & 1) != 0 ? kPolynomial : 0);
    tables[0][byte] = crc;
  }
  for (std::size_t k = 1; k < 8; ++k) {
    for (std::size_t byte = 0; byte < 256; ++byte) {
      const std::uint64_t crc = tables[k - 1][byte];
      tables[k][byte] = crc >> 8 ^ tables[0][crc & 0xff];
    }
  }
  return tables;
}

constexpr std::array<Table, 8> kTables = MakeTables();

std::uint64_t LoadLe64(const std::uint8_t* p) { return __builtin_bswap64(LoadBe64(p)); }

}  // namespace

void Crc64::Add(ByteView bytes) {
  std::uint64_t crc = state_;
  const std::uint8_t* p = bytes.data();
  std::size_t left = bytes.size();
  for (; left >= 8; left -= 8, p += 8) {
    crc ^= LoadLe64(p);
    crc = kTables[7][crc & 0xff] ^ kTables[6][crc >> 8 & 0xff] ^ kTables[5][crc >> 16 & 0xff] ^
          kTables[4][crc >> 24 & 0xff] ^ kTables[3][crc >> 32 & 0xff] ^
          kTables[2][crc >> 40 & 0xff] ^ kTables[1][crc >> 48 & 0xff] ^ kTables[0][crc >> 56];
  }
  for (; left != 0; --left, ++p) crc = crc >> 8 ^ kTables[0][(crc ^ *p) & 0xff];
  state_ = crc;
}

}  // namespace echofs
