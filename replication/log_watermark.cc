#include "replication/log_watermark.h"

#include <xxhash.h>

#include <cstring>
#include <utility>

#include "replication/status_macros.h"

namespace echofs {
namespace {

constexpr char kMagic[8] = {'E', 'C', 'H', 'O', 'S', 'Y', 'N', 'C'};
constexpr std::size_t kSize = 24;

}  // namespace

absl::StatusOr<std::unique_ptr<SyncWatermark>> SyncWatermark::Open(Storage* storage,
                                                                   const std::string& path) {
  OpenOptions options;
  options.create = true;
  options.mode = 0600;
  ECHOFS_ASSIGN_OR_RETURN(std::unique_ptr<File> file, storage->Open(path, options));
  std::uint8_t bytes[kSize];
  ECHOFS_ASSIGN_OR_RETURN(const std::size_t n, file->ReadAt(0, bytes));
  std::unique_ptr<SyncWatermark> watermark(new SyncWatermark(std::move(file)));
  if (n == kSize && std::memcmp(bytes, kMagic, sizeof(kMagic)) == 0 &&
      XXH3_64bits(bytes, 16) == LoadBe64(bytes + 16)) {
    watermark->value_ = {LoadBe64(bytes + 8)};
  }
  return watermark;
}

absl::Status SyncWatermark::Write(LogIndex index) {
  std::uint8_t bytes[kSize];
  std::memcpy(bytes, kMagic, sizeof(kMagic));
  StoreBe64(bytes + 8, index.value);
  StoreBe64(bytes + 16, XXH3_64bits(bytes, 16));
  ECHOFS_RETURN_IF_ERROR(file_->WriteAt(0, bytes));
  value_ = index;
  return absl::OkStatus();
}

absl::Status SyncWatermark::WriteDurably(LogIndex index) {
  ECHOFS_RETURN_IF_ERROR(Write(index));
  return file_->Sync();
}

}  // namespace echofs
