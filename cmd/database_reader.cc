#include "cmd/database_reader.h"

#include <fmt/format.h>

#include <memory>

#include "absl/time/clock.h"
#include "cmd/page_hashes.h"
#include "replication/database_export.h"
#include "replication/status_macros.h"

namespace echofs::cmd {
namespace {

constexpr int kAttemptsMax = 5;
constexpr absl::Duration kAttemptDelay = absl::Milliseconds(200);

class Reader final : public DatabaseSink {
 public:
  Reader(File* file, Progress* progress) : file_(file), progress_(progress) {}

  absl::Status Begin(const DatabasePosition& position) override {
    page_size_ = position.page_size;
    size_ = Offset(position.page_count + std::uint64_t{1});
    hashes_ = std::make_unique<PageHashes>(page_size_);
    progress_->Set(0, size_);
    return absl::OkStatus();
  }
  absl::Status Copied(PageNumber first, ByteView pages) override {
    ECHOFS_RETURN_IF_ERROR(Changed(first, pages));
    progress_->Set(Offset(first) + pages.size(), size_);
    return absl::OkStatus();
  }
  absl::Status Changed(PageNumber first, ByteView pages) override {
    hashes_->Add(first, pages);
    return file_ != nullptr ? file_->WriteAt(Offset(first), pages) : absl::OkStatus();
  }
  absl::Status Resize(PageNumber page_count) override {
    hashes_->Resize(page_count);
    return file_ != nullptr ? file_->Truncate(Offset(page_count + std::uint64_t{1}))
                            : absl::OkStatus();
  }
  absl::Status End(const DatabasePosition& position) override {
    ECHOFS_RETURN_IF_ERROR(Resize(position.page_count));
    content_ = {position, hashes_->Digest()};
    return absl::OkStatus();
  }
  bool cancelled() const override { return false; }

  const DatabaseContent& content() const { return content_; }

 private:
  std::uint64_t Offset(std::uint64_t page) const { return (page - 1) * page_size_; }

  File* const file_;
  Progress* const progress_;
  std::uint32_t page_size_ = 0;
  std::uint64_t size_ = 0;  // bytes, when it began
  std::unique_ptr<PageHashes> hashes_;
  DatabaseContent content_;
};

}  // namespace

absl::StatusOr<DatabaseContent> ReadDatabase(ToolsClient* client, const std::string& database,
                                             File* file, Progress* progress) {
  absl::Status status;
  for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
    if (attempt > 0) absl::SleepFor(kAttemptDelay);
    if (file != nullptr) ECHOFS_RETURN_IF_ERROR(file->Truncate(0));
    Reader reader(file, progress);
    status = client->Export(database, reader);
    if (status.ok()) return reader.content();
    if (!absl::IsAborted(status)) return status;
  }
  return absl::AbortedError(
      fmt::format("gave up after {} attempts: {}", kAttemptsMax, std::string(status.message())));
}

}  // namespace echofs::cmd
