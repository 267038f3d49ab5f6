#include "replication/log_segment.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>
#include <utility>

#include "replication/status_macros.h"

namespace echofs {
namespace {

constexpr char kMagic[8] = {'E', 'C', 'H', 'O', 'L', 'O', 'G', '1'};
constexpr std::size_t kFixedSize = 64;
constexpr std::size_t kTermSize = 16;  // bytes of one term
constexpr std::size_t kChecksumSize = 8;
constexpr std::string_view kSuffix = ".seg";
constexpr std::size_t kNameDigits = 16;
constexpr std::uint64_t kPointDistance = 64 << 10;  // bytes

absl::Status Damaged(const std::string& path, std::string_view what) {
  return absl::DataLossError(fmt::format("log segment {}: {}", path, what));
}

std::string EncodeStart(const SegmentHeader& header, const LogCatalog& catalog,
                        const TermHistory& terms) {
  const std::string databases = catalog.Encode();
  std::string out(kFixedSize, '\0');
  auto* p = reinterpret_cast<std::uint8_t*>(out.data());
  std::memcpy(p, kMagic, sizeof(kMagic));
  StoreBe32(p + 8, kSegmentFormatVersion);
  StoreBe32(p + 12, static_cast<std::uint32_t>(terms.starts().size()));
  StoreBe64(p + 16, header.base.value);
  StoreBe64(p + 24, header.base_term.value);
  StoreBe64(p + 32, header.previous_base);
  StoreBe64(p + 40, header.previous_size);
  StoreBe64(p + 48, static_cast<std::uint64_t>(header.created_ms));
  StoreBe64(p + 56, databases.size());
  out += databases;
  for (const TermStart& start : terms.starts()) {
    std::uint8_t bytes[kTermSize];
    StoreBe64(bytes, start.term.value);
    StoreBe64(bytes + 8, start.first.value);
    out.append(reinterpret_cast<const char*>(bytes), kTermSize);
  }
  std::uint8_t checksum[kChecksumSize];
  StoreBe64(checksum, XXH3_64bits(out.data(), out.size()));
  out.append(reinterpret_cast<const char*>(checksum), kChecksumSize);
  return out;
}

SegmentHeader LoadHeader(const std::uint8_t* p) {
  SegmentHeader header;
  header.base = {LoadBe64(p + 16)};
  header.base_term = {LoadBe64(p + 24)};
  header.previous_base = LoadBe64(p + 32);
  header.previous_size = LoadBe64(p + 40);
  header.created_ms = static_cast<std::int64_t>(LoadBe64(p + 48));
  return header;
}

// `bytes` are the terms of a segment of version 2.
std::optional<TermHistory> LoadTerms(ByteView bytes) {
  std::vector<TermStart> starts;
  for (; !bytes.empty(); bytes = bytes.subspan(kTermSize)) {
    starts.push_back({{LoadBe64(bytes.data())}, {LoadBe64(bytes.data() + 8)}});
  }
  return TermHistory::FromStarts(std::move(starts));
}

}  // namespace

std::string SegmentFileName(LogIndex base) {
  return fmt::format("{:016x}{}", base.value + 1, kSuffix);
}

bool ParseSegmentFileName(std::string_view name, LogIndex* base) {
  if (name.size() != kNameDigits + kSuffix.size() || name.substr(kNameDigits) != kSuffix)
    return false;
  std::uint64_t first = 0;
  const auto result = std::from_chars(name.data(), name.data() + kNameDigits, first, 16);
  if (result.ec != std::errc() || result.ptr != name.data() + kNameDigits || first == 0)
    return false;
  *base = {first - 1};
  return SegmentFileName(*base) == name;
}

absl::StatusOr<std::unique_ptr<File>> WriteSegmentFile(Storage* storage, const std::string& path,
                                                       const SegmentHeader& header,
                                                       const LogCatalog& catalog,
                                                       const TermHistory& terms,
                                                       std::uint64_t* data_start) {
  const std::string start = EncodeStart(header, catalog, terms);
  OpenOptions options;
  options.create = true;
  options.truncate = true;
  options.mode = 0600;
  ECHOFS_ASSIGN_OR_RETURN(std::unique_ptr<File> file, storage->Open(path, options));
  ECHOFS_RETURN_IF_ERROR(file->WriteAt(0, AsBytes(start)));
  ECHOFS_RETURN_IF_ERROR(file->Sync());
  *data_start = start.size();
  return file;
}

absl::StatusOr<SegmentStart> ReadSegmentStart(const File& file, const std::string& path) {
  std::uint8_t fixed[kFixedSize];
  ECHOFS_ASSIGN_OR_RETURN(const std::size_t n, file.ReadAt(0, fixed));
  if (n < kFixedSize || std::memcmp(fixed, kMagic, sizeof(kMagic)) != 0) {
    return Damaged(path, "offset 0: not the start of a segment");
  }
  const std::uint32_t version = LoadBe32(fixed + 8);
  if (version < kSegmentFormatVersionMin || version > kSegmentFormatVersion) {
    return absl::FailedPreconditionError(fmt::format(
        "log segment {} has format version {}, this echofs knows {}: use the version of "
        "echofs that wrote it",
        path, version, kSegmentFormatVersion));
  }
  ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t file_size, file.Size());
  const std::uint64_t catalog_size = LoadBe64(fixed + 56);
  const std::uint32_t term_count = LoadBe32(fixed + 12);
  if (term_count > (version == 1 ? 0 : kTermHistoryMax)) {
    return Damaged(path, "offset 12: too many terms");
  }
  const std::uint64_t terms_size = std::uint64_t{term_count} * kTermSize;
  if (file_size < kFixedSize + terms_size + kChecksumSize ||
      catalog_size > file_size - kFixedSize - terms_size - kChecksumSize) {
    return Damaged(path, "offset 56: the catalog is longer than the file");
  }
  std::string bytes(kFixedSize + catalog_size + terms_size + kChecksumSize, '\0');
  ECHOFS_ASSIGN_OR_RETURN(
      const std::size_t got,
      file.ReadAt(0, {reinterpret_cast<std::uint8_t*>(bytes.data()), bytes.size()}));
  const std::size_t hashed = kFixedSize + catalog_size + terms_size;
  if (got < bytes.size() ||
      XXH3_64bits(bytes.data(), hashed) != LoadBe64(AsBytes(bytes).data() + hashed)) {
    return Damaged(path, fmt::format("offset {}: wrong checksum of the segment header", hashed));
  }
  SegmentStart start;
  start.header = LoadHeader(AsBytes(bytes).data());
  start.data_start = bytes.size();
  absl::StatusOr<LogCatalog> catalog =
      LogCatalog::Decode(AsBytes(bytes).subspan(kFixedSize, catalog_size));
  if (!catalog.ok()) {
    return Damaged(path, fmt::format("offset {}: {}", kFixedSize,
                                     std::string_view(catalog.status().message().data(),
                                                      catalog.status().message().size())));
  }
  start.catalog = *std::move(catalog);
  start.terms = TermHistory::FromBase(start.header.base, start.header.base_term);
  if (term_count != 0) {
    std::optional<TermHistory> terms =
        LoadTerms(AsBytes(bytes).subspan(kFixedSize + catalog_size, terms_size));
    if (!terms || terms->starts().back().term != start.header.base_term ||
        terms->starts().back().first > start.header.base) {
      return Damaged(path, fmt::format("offset {}: impossible terms", kFixedSize + catalog_size));
    }
    start.terms = *std::move(terms);
  }
  return start;
}

LogSegment::LogSegment(std::string path, const SegmentHeader& header, std::uint64_t data_start)
    : path_(std::move(path)),
      header_(header),
      data_start_(data_start),
      next_point_(data_start + kPointDistance) {}

std::shared_ptr<LogSegment> LogSegment::CutAfter(LogIndex last) const {
  auto cut = std::make_shared<LogSegment>(path_, header_, data_start_);
  absl::MutexLock lock(&mu_);
  for (const Point& point : points_) {
    if (point.index <= last) cut->AddPoint(point.index, point.offset);
  }
  return cut;
}

void LogSegment::AddPoint(LogIndex index, std::uint64_t offset) {
  if (offset < next_point_.load(std::memory_order_relaxed)) return;
  absl::MutexLock lock(&mu_);
  if (!points_.empty() && index <= points_.back().index) return;
  points_.push_back({index, offset});
  next_point_.store(offset + kPointDistance, std::memory_order_relaxed);
}

LogSegment::Point LogSegment::Nearest(LogIndex index) const {
  absl::MutexLock lock(&mu_);
  const auto after = std::upper_bound(points_.begin(), points_.end(), index,
                                      [](LogIndex i, const Point& p) { return i < p.index; });
  if (after == points_.begin()) return {base().Next(), data_start_};
  return *std::prev(after);
}

}  // namespace echofs
