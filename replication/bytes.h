// Views of bytes, sequential sources and sinks of bytes, and big-endian integers: SQLite, LTX and
// our own formats are all big-endian.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace echofs {

using ByteView = std::span<const std::uint8_t>;
using MutableByteView = std::span<std::uint8_t>;

inline ByteView AsBytes(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}
inline std::string_view AsText(ByteView bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// Receives bytes in order. One thread at a time.
class ByteSink {
 public:
  virtual ~ByteSink() = default;
  virtual absl::Status Write(ByteView bytes) = 0;
};

// Delivers bytes in order. One thread at a time.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Fills `out` from the start, maybe in part; returns how much was filled. 0 means end of data.
  virtual absl::StatusOr<std::size_t> Read(MutableByteView out) = 0;
};

// Appends to a vector that the caller owns.
class VectorSink final : public ByteSink {
 public:
  explicit VectorSink(std::vector<std::uint8_t>* out) : out_(out) {}
  absl::Status Write(ByteView bytes) override;

 private:
  std::vector<std::uint8_t>* const out_;
};

// Reads from memory that the caller keeps alive.
class ViewSource final : public ByteSource {
 public:
  explicit ViewSource(ByteView bytes) : rest_(bytes) {}
  absl::StatusOr<std::size_t> Read(MutableByteView out) override;

 private:
  ByteView rest_;
};

// Fills all of `out` or fails with DataLoss("... ends after N of M bytes").
absl::Status ReadExactly(ByteSource& source, MutableByteView out);

inline std::uint16_t LoadBe16(const std::uint8_t* p) {
  return static_cast<std::uint16_t>(p[0] << 8 | p[1]);
}
inline std::uint32_t LoadBe32(const std::uint8_t* p) {
  return std::uint32_t{p[0]} << 24 | std::uint32_t{p[1]} << 16 | std::uint32_t{p[2]} << 8 | p[3];
}
inline std::uint64_t LoadBe64(const std::uint8_t* p) {
  return std::uint64_t{LoadBe32(p)} << 32 | LoadBe32(p + 4);
}
inline void StoreBe16(std::uint8_t* p, std::uint16_t v) {
  p[0] = static_cast<std::uint8_t>(v >> 8);
  p[1] = static_cast<std::uint8_t>(v);
}
inline void StoreBe32(std::uint8_t* p, std::uint32_t v) {
  StoreBe16(p, static_cast<std::uint16_t>(v >> 16));
  StoreBe16(p + 2, static_cast<std::uint16_t>(v));
}
inline void StoreBe64(std::uint8_t* p, std::uint64_t v) {
  StoreBe32(p, static_cast<std::uint32_t>(v >> 32));
  StoreBe32(p + 4, static_cast<std::uint32_t>(v));
}

}  // namespace echofs
