// CRC-64/ISO as in Go's hash/crc64, the checksum of LTX files: polynomial 0xD800000000000000
// (reflected), start and final xor all ones. Of "123456789" it is 0xb90956c775a41001.
#pragma once

#include <cstdint>

#include "replication/bytes.h"

namespace echofs {

// Fed in pieces. A value; one thread.
class Crc64 {
 public:
  void Add(ByteView bytes);
  std::uint64_t Value() const { return ~state_; }

 private:
  std::uint64_t state_ = ~std::uint64_t{0};
};

}  // namespace echofs
