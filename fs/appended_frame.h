// The frame that SQLite is appending to a WAL: its header, then its page. The kernel may bring either in pieces: a
// write into a page of the file of which it has no copy yet ends where that page ends.
#pragma once

#include <cstdint>
#include <vector>

#include "fs/sqlite_format.h"
#include "replication/bytes.h"

namespace echofs::fs {

// One thread at a time.
class AppendedFrame {
 public:
  // A frame begins at `offset`, in bytes from the start of the WAL.
  void Start(std::uint32_t frame, std::uint64_t offset, std::uint32_t page_size) {
    frame_ = frame;
    offset_ = offset;
    size_ = page_size + sqlite::kFrameHeaderSize;
    bytes_.clear();
  }
  void Clear() { frame_ = 0; }

  // True for a write that goes on where the frame ends so far.
  bool Continues(std::uint64_t offset, std::size_t size) const {
    return frame_ != 0 && offset == offset_ + bytes_.size() && bytes_.size() + size <= size_;
  }
  void Add(ByteView bytes) { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }

  std::uint32_t frame() const { return frame_; }  // 0: none
  bool has_header() const { return bytes_.size() >= sqlite::kFrameHeaderSize; }
  bool complete() const { return bytes_.size() == size_; }
  ByteView header() const { return ByteView(bytes_).first(sqlite::kFrameHeaderSize); }
  ByteView page() const { return ByteView(bytes_).subspan(sqlite::kFrameHeaderSize); }

 private:
  std::uint32_t frame_ = 0;
  std::uint64_t offset_ = 0;
  std::size_t size_ = 0;  // of the whole frame
  std::vector<std::uint8_t> bytes_;
};

}  // namespace echofs::fs
