#include "fs/change_stream.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "replication/digest.h"
#include "replication/status_macros.h"

namespace echofs::fs {
namespace {

// SQLite leaves out at most free pages at the end of a growing database; more is damage.
constexpr std::uint64_t kMissingPagesMax = 1 << 20;

class ChangeSetStream final : public ChangeStream {
 public:
  ChangeSetStream(std::unique_ptr<LtxDecoder> decoder, std::uint32_t page_size,
                  std::uint32_t page_count, BaseState base)
      : decoder_(std::move(decoder)),
        page_count_(page_count),
        lock_page_(LockPage(page_size)),
        base_(std::move(base)),
        digest_(base_.digest),
        next_new_(base_.page_count + 1),
        buffer_(page_size),
        zeros_(page_size) {}

  // Takes the pages that a shrinking database loses out of the digest.
  absl::Status SubtractRemoved() {
    for (std::uint64_t n = std::uint64_t{page_count_} + 1; n <= base_.page_count; ++n) {
      ECHOFS_RETURN_IF_ERROR(SubtractOld(static_cast<PageNumber>(n)));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::optional<Page>> Next() override {
    if (!held_ && !ended_) {
      ECHOFS_ASSIGN_OR_RETURN(held_, decoder_->Next());
      ended_ = !held_;
    }
    if (next_new_ == lock_page_) ++next_new_;
    const std::uint64_t upto = held_ ? held_->number : std::uint64_t{page_count_} + 1;
    if (next_new_ < upto) return Missing();
    if (!held_) return std::optional<Page>();
    const Page page{held_->number, held_->content};
    held_.reset();
    if (page.number > page_count_) {
      return absl::DataLossError(fmt::format("page {} in a change set of a database of {} pages",
                                             page.number, page_count_));
    }
    if (page.number <= base_.page_count) ECHOFS_RETURN_IF_ERROR(SubtractOld(page.number));
    digest_ += PageHash(page.number, page.content);
    next_new_ = std::max(next_new_, std::uint64_t{page.number} + 1);
    return std::optional<Page>(page);
  }

  std::uint64_t digest() const override { return digest_; }

 private:
  absl::StatusOr<std::optional<Page>> Missing() {
    if (++missing_ > kMissingPagesMax) {
      return absl::DataLossError(
          "a change set lacks most of the pages by which the database grows");
    }
    const Page page{static_cast<PageNumber>(next_new_++), zeros_};
    digest_ += PageHash(page.number, page.content);
    return std::optional<Page>(page);
  }

  absl::Status SubtractOld(PageNumber number) {
    if (number == lock_page_) return absl::OkStatus();
    ECHOFS_RETURN_IF_ERROR(base_.read(number, buffer_));
    digest_ -= PageHash(number, buffer_);
    return absl::OkStatus();
  }

  const std::unique_ptr<LtxDecoder> decoder_;
  const std::uint32_t page_count_;
  const PageNumber lock_page_;
  const BaseState base_;
  std::uint64_t digest_;
  std::uint64_t next_new_;  // first page beyond the base that was not given out
  std::uint64_t missing_ = 0;
  bool ended_ = false;
  std::optional<LtxDecoder::Page> held_;
  std::vector<std::uint8_t> buffer_;
  const std::vector<std::uint8_t> zeros_;
};

class CopyStream final : public ChangeStream {
 public:
  CopyStream(const File* file, std::uint32_t page_size, std::uint32_t page_count, BaseState base)
      : file_(file),
        page_count_(page_count),
        lock_page_(LockPage(page_size)),
        base_(std::move(base)),
        page_(page_size),
        old_(page_size) {}

  absl::StatusOr<std::optional<Page>> Next() override {
    while (++last_ <= page_count_) {
      if (last_ == lock_page_) continue;
      const auto number = static_cast<PageNumber>(last_);
      ECHOFS_RETURN_IF_ERROR(ReadZeroFilled(*file_, (last_ - 1) * page_.size(), page_));
      digest_ += PageHash(number, page_);
      if (number <= base_.page_count) {
        ECHOFS_RETURN_IF_ERROR(base_.read(number, old_));
        if (old_ == page_) continue;
      }
      return std::optional<Page>(Page{number, page_});
    }
    return std::optional<Page>();
  }

  std::uint64_t digest() const override { return digest_; }

 private:
  const File* const file_;
  const std::uint32_t page_count_;
  const PageNumber lock_page_;
  const BaseState base_;
  std::uint64_t last_ = 0;
  std::uint64_t digest_ = 0;
  std::vector<std::uint8_t> page_;
  std::vector<std::uint8_t> old_;
};

class PagesStream final : public ChangeStream {
 public:
  PagesStream(const File* file, const PageSet* pages, std::uint32_t page_size,
              std::uint32_t page_count, BaseState base)
      : file_(file),
        page_count_(page_count),
        lock_page_(LockPage(page_size)),
        base_(std::move(base)),
        range_(pages->ranges().begin()),
        end_(pages->ranges().end()),
        digest_(base_.digest),
        page_(page_size),
        old_(page_size) {}

  // Takes the pages that a shrinking database loses out of the digest.
  absl::Status SubtractRemoved() {
    for (std::uint64_t n = std::uint64_t{page_count_} + 1; n <= base_.page_count; ++n) {
      if (n == lock_page_) continue;
      ECHOFS_RETURN_IF_ERROR(base_.read(static_cast<PageNumber>(n), old_));
      digest_ -= PageHash(static_cast<PageNumber>(n), old_);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::optional<Page>> Next() override {
    for (; range_ != end_; ++range_) {
      next_ = std::max<std::uint64_t>(next_, range_->first);
      while (next_ <= std::min(range_->second, page_count_)) {
        const auto number = static_cast<PageNumber>(next_++);
        if (number == lock_page_) continue;
        ECHOFS_ASSIGN_OR_RETURN(const bool differs, Compare(number));
        if (differs) return std::optional<Page>(Page{number, page_});
      }
    }
    return std::optional<Page>();
  }

  std::uint64_t digest() const override { return digest_; }

 private:
  // Reads the page and puts it into the digest.
  absl::StatusOr<bool> Compare(PageNumber number) {
    ECHOFS_RETURN_IF_ERROR(ReadZeroFilled(*file_, std::uint64_t{number - 1} * page_.size(), page_));
    if (number <= base_.page_count) {
      ECHOFS_RETURN_IF_ERROR(base_.read(number, old_));
      if (old_ == page_) return false;
      digest_ -= PageHash(number, old_);
    }
    digest_ += PageHash(number, page_);
    return true;
  }

  const File* const file_;
  const PageNumber page_count_;
  const PageNumber lock_page_;
  const BaseState base_;
  std::map<PageNumber, PageNumber>::const_iterator range_;
  const std::map<PageNumber, PageNumber>::const_iterator end_;
  std::uint64_t next_ = 1;
  std::uint64_t digest_;
  std::vector<std::uint8_t> page_;
  std::vector<std::uint8_t> old_;
};

void ForgetOtherPageSize(BaseState* base, std::uint32_t page_size) {
  if (base->page_size == page_size) return;
  base->page_count = 0;
  base->digest = 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChangeStream>> OpenChangeSet(const LogEntry& entry,
                                                            ByteSource* payload, BaseState base) {
  ECHOFS_ASSIGN_OR_RETURN(std::unique_ptr<LtxDecoder> decoder, LtxDecoder::Start(payload));
  const ChangeSetHeader& header = decoder->header();
  if (header.page_size != entry.page_size || header.page_count != entry.page_count ||
      header.txid != entry.txid || header.page_count == 0) {
    return absl::DataLossError(
        fmt::format("log entry {} (TXID {}) holds the change set of another one", entry.index.value,
                    entry.txid.value));
  }
  ForgetOtherPageSize(&base, entry.page_size);
  auto stream = std::make_unique<ChangeSetStream>(std::move(decoder), entry.page_size,
                                                  entry.page_count, std::move(base));
  ECHOFS_RETURN_IF_ERROR(stream->SubtractRemoved());
  return stream;
}

absl::StatusOr<std::unique_ptr<ChangeStream>> OpenCopy(const File* file, std::uint32_t page_size,
                                                       std::uint32_t page_count, BaseState base) {
  ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t size, file->Size());
  if (page_count == 0 || size < (std::uint64_t{page_count} - 1) * page_size ||
      size > std::uint64_t{page_count} * page_size) {
    return absl::InvalidArgumentError(
        fmt::format("a copy of {} bytes is not {} pages of {} bytes", size, page_count, page_size));
  }
  ForgetOtherPageSize(&base, page_size);
  return std::make_unique<CopyStream>(file, page_size, page_count, std::move(base));
}

absl::StatusOr<std::unique_ptr<ChangeStream>> OpenPages(const File* file, const PageSet* pages,
                                                        std::uint32_t page_size,
                                                        std::uint32_t page_count, BaseState base) {
  if (page_count == 0 || base.page_count == 0 || base.page_size != page_size) {
    return absl::InvalidArgumentError("single pages do not fit the database");
  }
  PageSet all = *pages;
  all.Add(1, base.page_count);
  if (all.ranges().begin()->second < page_count) {
    return absl::InvalidArgumentError("pages by which the database grows are missing");
  }
  auto stream = std::make_unique<PagesStream>(file, pages, page_size, page_count, std::move(base));
  ECHOFS_RETURN_IF_ERROR(stream->SubtractRemoved());
  return stream;
}

}  // namespace echofs::fs
