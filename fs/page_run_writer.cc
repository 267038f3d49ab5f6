#include "fs/page_run_writer.h"

#include "replication/failpoint.h"
#include "replication/status_macros.h"

namespace echofs::fs {
namespace {

constexpr std::size_t kRunSizeMax = 1 << 20;  // bytes

}  // namespace

absl::Status PageRunWriter::Add(PageNumber number, ByteView page) {
  ECHOFS_CHECK(page.size() == page_size_ && number != 0);
  const std::uint64_t next = std::uint64_t{first_} + run_.size() / page_size_;
  if (!run_.empty() && (number != next || run_.size() + page_size_ > kRunSizeMax)) {
    ECHOFS_RETURN_IF_ERROR(Flush());
  }
  if (run_.empty()) first_ = number;
  run_.insert(run_.end(), page.begin(), page.end());
  return absl::OkStatus();
}

absl::Status PageRunWriter::Flush() {
  if (run_.empty()) return absl::OkStatus();
  const std::uint64_t offset = (std::uint64_t{first_} - 1) * page_size_;
  ECHOFS_RETURN_IF_ERROR(file_->WriteAt(offset, run_));
  Failpoint("apply.page_run.after");
  ECHOFS_RETURN_IF_ERROR(cache_->Store(inode_, offset, run_));
  run_.clear();
  return absl::OkStatus();
}

}  // namespace echofs::fs
