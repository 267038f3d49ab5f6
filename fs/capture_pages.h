// Page sources over SQLite's files, and what else a commit takes from them.
#pragma once

#include <utility>
#include <vector>

#include "fs/sqlite_format.h"
#include "fs/wal_capture.h"
#include "replication/change_set.h"
#include "replication/digest.h"
#include "replication/log_entry.h"
#include "replication/status_macros.h"
#include "replication/storage.h"

namespace echofs::fs {

// Owner and permission bits of an open file; the defaults when they cannot be told.
FileAttributes AttributesOf(const File& file);

// Pages of a database file; what lies beyond its end is zeros.
class FilePages final : public PageSource {
 public:
  // `numbers` in ascending order. Does not own the file.
  FilePages(const File* file, std::uint32_t page_size, std::vector<PageNumber> numbers)
      : file_(file), page_size_(page_size), numbers_(std::move(numbers)) {}

  std::size_t size() const override { return numbers_.size(); }
  PageNumber number(std::size_t i) const override { return numbers_[i]; }
  absl::Status Read(std::size_t i, MutableByteView out) override {
    return ReadZeroFilled(*file_, std::uint64_t{numbers_[i] - 1} * page_size_, out);
  }

 private:
  const File* const file_;
  const std::uint32_t page_size_;
  const std::vector<PageNumber> numbers_;
};

// Pages in a WAL; frame 0 means: in the database file.
class WalPages final : public PageSource {
 public:
  // `frames` in ascending order of pages, one for each. Does not own the files.
  WalPages(const File* wal, const File* main, std::uint32_t page_size, std::vector<WalFrame> frames)
      : wal_(wal), main_(main), page_size_(page_size), frames_(std::move(frames)) {}

  std::size_t size() const override { return frames_.size(); }
  PageNumber number(std::size_t i) const override { return frames_[i].page; }
  absl::Status Read(std::size_t i, MutableByteView out) override {
    const WalFrame& frame = frames_[i];
    if (frame.frame == 0) {
      return ReadZeroFilled(*main_, std::uint64_t{frame.page - 1} * page_size_, out);
    }
    ECHOFS_ASSIGN_OR_RETURN(
        const std::size_t n,
        wal_->ReadAt(sqlite::FrameOffset(frame.frame, page_size_) + sqlite::kFrameHeaderSize, out));
    if (n < out.size()) return absl::DataLossError("the WAL ends within a captured frame");
    return absl::OkStatus();
  }

 private:
  const File* const wal_;
  const File* const main_;
  const std::uint32_t page_size_;
  const std::vector<WalFrame> frames_;
};

}  // namespace echofs::fs
