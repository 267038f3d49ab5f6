#include "replication/orphan_file.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "replication/limits.h"
#include "replication/status_macros.h"

namespace echofs {
namespace {

constexpr char kMagic[8] = {'E', 'C', 'H', 'O', 'O', 'R', 'P', 'H'};
constexpr std::size_t kFixedSize = 96;
constexpr std::size_t kChecksumSize = 8;
constexpr std::uint32_t kCommonUnknown = 1;
constexpr std::size_t kIdSizeMax = 3 * 20 + 2;  // three numbers in decimal

// A payload within the file.
class PayloadSource final : public ByteSource {
 public:
  PayloadSource(BufferedFile* file, std::uint64_t begin, std::uint64_t end)
      : file_(file), at_(begin), end_(end) {}
  absl::StatusOr<std::size_t> Read(MutableByteView out) override {
    ECHOFS_ASSIGN_OR_RETURN(const std::size_t n, file_->Read(at_, end_, out));
    at_ += n;
    return n;
  }

 private:
  BufferedFile* const file_;
  std::uint64_t at_;
  const std::uint64_t end_;
};

}  // namespace

std::string OrphanId(const OrphanInfo& info) {
  return fmt::format("{}-{}-{}", info.term.value, info.first.value, info.last.value);
}

bool IsOrphanId(std::string_view id) {
  const auto dashes = std::count(id.begin(), id.end(), '-');
  return id.size() <= kIdSizeMax && dashes == 2 && id.front() != '-' && id.back() != '-' &&
         id.find_first_not_of("0123456789-") == std::string_view::npos;
}

std::string EncodeOrphanHeader(const OrphanInfo& info, std::uint64_t records_size) {
  std::string out(kFixedSize, '\0');
  auto* p = reinterpret_cast<std::uint8_t*>(out.data());
  std::memcpy(p, kMagic, sizeof(kMagic));
  StoreBe32(p + 8, kOrphanFormatVersion);
  StoreBe16(p + 12, static_cast<std::uint16_t>(info.primary.size()));
  StoreBe64(p + 16, info.common.index.value);
  StoreBe64(p + 24, info.common.term.value);
  StoreBe64(p + 32, info.first.value);
  StoreBe64(p + 40, info.last.value);
  StoreBe64(p + 48, info.term.value);
  StoreBe64(p + 56, info.primary_term.value);
  StoreBe64(p + 64, static_cast<std::uint64_t>(info.kept_ms));
  StoreBe64(p + 72, info.change_sets);
  StoreBe64(p + 80, records_size);
  StoreBe32(p + 88, info.common.known ? 0 : kCommonUnknown);
  out += info.primary;
  std::uint8_t checksum[kChecksumSize];
  StoreBe64(checksum, XXH3_64bits(out.data(), out.size()));
  out.append(reinterpret_cast<const char*>(checksum), kChecksumSize);
  return out;
}

absl::StatusOr<std::unique_ptr<OrphanFile>> OrphanFile::Open(Storage* storage,
                                                             const std::string& path) {
  OpenOptions options;
  options.read_only = true;
  ECHOFS_ASSIGN_OR_RETURN(std::unique_ptr<File> file, storage->Open(path, options));
  ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t size, file->Size());
  std::unique_ptr<OrphanFile> orphans(new OrphanFile(std::move(file), path));
  ECHOFS_RETURN_IF_ERROR(orphans->ReadHeader(size));
  return orphans;
}

absl::Status OrphanFile::ReadHeader(std::uint64_t size) {
  const std::string& path = file_.path();
  const auto damaged = [&](std::string_view what) {
    return absl::DataLossError(fmt::format("{} is damaged: {}", path, what));
  };
  ECHOFS_ASSIGN_OR_RETURN(const ByteView bytes,
                          file_.View(0, kFixedSize + kIdentitySizeMax + kChecksumSize,
                                     std::max<std::uint64_t>(size, 1)));
  const std::uint8_t* p = bytes.data();
  if (bytes.size() < kFixedSize + kChecksumSize || std::memcmp(p, kMagic, sizeof(kMagic)) != 0) {
    return damaged("it does not begin as a file of orphans does");
  }
  if (const std::uint32_t version = LoadBe32(p + 8); version != kOrphanFormatVersion) {
    return absl::FailedPreconditionError(fmt::format(
        "{} has format version {}, this echofs knows {}: use the version of echofs that "
        "wrote it",
        path, version, kOrphanFormatVersion));
  }
  const std::size_t id_size = LoadBe16(p + 12);
  const std::size_t hashed = kFixedSize + id_size;
  if (id_size > kIdentitySizeMax || bytes.size() < hashed + kChecksumSize ||
      XXH3_64bits(p, hashed) != LoadBe64(p + hashed)) {
    return damaged("wrong checksum of its header");
  }
  info_.common = {(LoadBe32(p + 88) & kCommonUnknown) == 0, {LoadBe64(p + 16)}, {LoadBe64(p + 24)}};
  info_.first = {LoadBe64(p + 32)};
  info_.last = {LoadBe64(p + 40)};
  info_.term = {LoadBe64(p + 48)};
  info_.primary_term = {LoadBe64(p + 56)};
  info_.kept_ms = static_cast<std::int64_t>(LoadBe64(p + 64));
  info_.change_sets = LoadBe64(p + 72);
  info_.primary = AsText(bytes.subspan(kFixedSize, id_size));
  info_.id = OrphanId(info_);
  info_.bytes = size;
  next_ = hashed + kChecksumSize;
  end_ = size;
  if (LoadBe64(p + 80) != end_ - next_) return damaged("it does not have the size that it should");
  return absl::OkStatus();
}

absl::StatusOr<std::optional<LogEntry>> OrphanFile::Next() {
  if (next_ == end_) {
    if (entries_ != info_.last.value - info_.first.value + 1 || change_sets_ != info_.change_sets) {
      return DamagedRecord(file_.path(), end_, "it does not have the entries that it should");
    }
    return std::optional<LogEntry>();
  }
  ECHOFS_ASSIGN_OR_RETURN(entry_, ReadEntryAt(file_, next_, end_));
  if (entry_.index.value != info_.first.value + entries_) {
    return DamagedRecord(file_.path(), next_,
                         fmt::format("entry {} is not the next one", entry_.index.value));
  }
  current_ = next_;
  next_ += entry_.RecordSize();
  ++entries_;
  if (entry_.kind != EntryKind::kOpenTerm) ++change_sets_;
  return std::optional<LogEntry>(entry_);
}

absl::StatusOr<std::unique_ptr<ByteSource>> OrphanFile::Payload() {
  ECHOFS_RETURN_IF_ERROR(VerifyPayload(file_, entry_, current_));
  const std::uint64_t end = current_ + entry_.RecordSize() - kRecordTrailerSize;
  return std::make_unique<PayloadSource>(&file_, end - entry_.payload_size, end);
}

}  // namespace echofs
