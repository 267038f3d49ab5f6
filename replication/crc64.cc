#include "replication/crc64.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace echofs {
namespace {

constexpr std::uint64_t kPolynomial = 0xD800000000000000u;

// ---- by tables, on any machine ----

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

std::uint64_t AddByTables(std::uint64_t crc, const std::uint8_t* p, std::size_t left) {
  for (; left >= 8; left -= 8, p += 8) {
    crc ^= LoadLe64(p);
    crc = kTables[7][crc & 0xff] ^ kTables[6][crc >> 8 & 0xff] ^ kTables[5][crc >> 16 & 0xff] ^
          kTables[4][crc >> 24 & 0xff] ^ kTables[3][crc >> 32 & 0xff] ^
          kTables[2][crc >> 40 & 0xff] ^ kTables[1][crc >> 48 & 0xff] ^ kTables[0][crc >> 56];
  }
  for (; left != 0; --left, ++p) crc = crc >> 8 ^ kTables[0][(crc ^ *p) & 0xff];
  return crc;
}

// ---- by carry-less multiplication, several times as fast ----

#if defined(__x86_64__)

constexpr std::size_t kFoldedSizeMin = 128;  // below it the tables are as quick

// x to the power `n` modulo the polynomial. Reflected: the highest bit is the coefficient of x^0.
constexpr std::uint64_t PowerOfX(int n) {
  std::uint64_t power = std::uint64_t{1} << 63;
  for (; n > 0; --n) power = power >> 1 ^ ((power & 1) != 0 ? kPolynomial : 0);
  return power;
}

// What 16 bytes are multiplied by to stand `bits` further on. A carry-less product of reflected numbers lacks a
// factor of x, hence the 1; the lower half stands for the higher powers.
constexpr std::uint64_t FoldLow(int bits) { return PowerOfX(bits + 64 - 1); }
constexpr std::uint64_t FoldHigh(int bits) { return PowerOfX(bits - 1); }

__attribute__((target("pclmul,sse2"))) __m128i Fold(__m128i sum, __m128i factors, __m128i next) {
  const __m128i low = _mm_clmulepi64_si128(sum, factors, 0x00);
  const __m128i high = _mm_clmulepi64_si128(sum, factors, 0x11);
  return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

__attribute__((target("pclmul,sse2"))) __m128i Load16(const std::uint8_t* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}

// At least 64 bytes. Four sums of 16 bytes each run beside each other over the data, are put together, and the tables
// reduce the 16 bytes that are left: they are the remainder of all that came before.
__attribute__((target("pclmul,sse2"))) std::uint64_t AddByProducts(std::uint64_t crc,
                                                                   const std::uint8_t* p,
                                                                   std::size_t left) {
  constexpr auto kHigh512 = static_cast<long long>(FoldHigh(512));
  constexpr auto kLow512 = static_cast<long long>(FoldLow(512));
  constexpr auto kHigh128 = static_cast<long long>(FoldHigh(128));
  constexpr auto kLow128 = static_cast<long long>(FoldLow(128));
  const __m128i by_four = _mm_set_epi64x(kHigh512, kLow512);
  const __m128i by_one = _mm_set_epi64x(kHigh128, kLow128);
  __m128i a = _mm_xor_si128(Load16(p), _mm_cvtsi64_si128(static_cast<long long>(crc)));
  __m128i b = Load16(p + 16);
  __m128i c = Load16(p + 32);
  __m128i d = Load16(p + 48);
  for (p += 64, left -= 64; left >= 64; p += 64, left -= 64) {
    a = Fold(a, by_four, Load16(p));
    b = Fold(b, by_four, Load16(p + 16));
    c = Fold(c, by_four, Load16(p + 32));
    d = Fold(d, by_four, Load16(p + 48));
  }
  d = Fold(Fold(Fold(a, by_one, b), by_one, c), by_one, d);
  for (; left >= 16; p += 16, left -= 16) d = Fold(d, by_one, Load16(p));
  std::uint8_t rest[16];
  std::memcpy(rest, &d, sizeof(rest));
  return AddByTables(AddByTables(0, rest, sizeof(rest)), p, left);
}

bool HasProducts() {
  static const bool has = __builtin_cpu_supports("pclmul") != 0;
  return has;
}

#endif

}  // namespace

void Crc64::Add(ByteView bytes) {
#if defined(__x86_64__)
  if (bytes.size() >= kFoldedSizeMin && HasProducts()) {
    state_ = AddByProducts(state_, bytes.data(), bytes.size());
    return;
  }
#endif
  state_ = AddByTables(state_, bytes.data(), bytes.size());
}

}  // namespace echofs
