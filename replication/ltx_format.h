// Constants and small pieces of LTX version 3 (docs/formats.md) that the encoder and the decoder
// share. Integers are big-endian.
//
//     header   100 bytes
//     frames   page number u32, flags u16, compressed size u32, LZ4 block; ascending page numbers
//              (flags 0, from older writers: page number u32, flags u16, LZ4 frame)
//     end      six zero bytes
//     index    per page varints page number, offset of the frame, size of the frame; a zero varint;
//              u64: size of the varints with that zero
//     trailer  post-apply checksum u64, file checksum u64
#pragma once

#include <cstdint>
#include <vector>

#include "replication/bytes.h"
#include "replication/ltx.h"

namespace echofs::ltx {

inline constexpr char kMagic[4] = {'L', 'T', 'X', '1'};

// Offsets in the header.
inline constexpr std::size_t kFlagsAt = 4;
inline constexpr std::size_t kPageSizeAt = 8;
inline constexpr std::size_t kPageCountAt = 12;
inline constexpr std::size_t kMinTxidAt = 16;
inline constexpr std::size_t kMaxTxidAt = 24;
inline constexpr std::size_t kTimestampAt = 32;
inline constexpr std::size_t kPreApplyChecksumAt = 40;
inline constexpr std::size_t kWalOffsetAt = 48;
inline constexpr std::size_t kWalSizeAt = 56;
inline constexpr std::size_t kWalSalt1At = 64;
inline constexpr std::size_t kWalSalt2At = 68;
inline constexpr std::size_t kNodeIdAt = 72;
inline constexpr std::size_t kTermAt = 80;         // reserved bytes for others
inline constexpr std::size_t kDigestAfterAt = 88;  // as above

inline constexpr std::uint32_t kNoChecksum = 0x2;  // file flag
inline constexpr std::uint16_t kSizedBlock =
    0x1;  // page flag: an LZ4 block with its size before it
inline constexpr std::size_t kPageHeaderSize = 6;  // page number and flags; zeros end the frames
inline constexpr std::size_t kBlockSizeFieldSize = 4;  // of a sized block
inline constexpr std::uint64_t kChecksumMark = std::uint64_t{1}
                                               << 63;  // set in every file checksum

// Appends an unsigned LEB128 number.
inline void AppendVarint(std::uint64_t value, std::vector<std::uint8_t>* out) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<std::uint8_t>(value | 0x80));
  out->push_back(static_cast<std::uint8_t>(value));
}

}  // namespace echofs::ltx
