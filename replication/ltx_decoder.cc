#include <fmt/format.h>
#include <lz4.h>
#include <lz4frame.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "replication/crc64.h"
#include "replication/digest.h"
#include "replication/ltx.h"
#include "replication/ltx_format.h"
#include "replication/status_macros.h"

namespace echofs {
namespace {

absl::Status Damaged(std::uint64_t offset, std::string_view what) {
  return absl::DataLossError(fmt::format("LTX file is damaged at offset {}: {}", offset, what));
}

struct FreeContext {
  void operator()(LZ4F_dctx* context) const { LZ4F_freeDecompressionContext(context); }
};

}  // namespace

struct LtxDecoder::State {
  ByteSource* source;
  ChangeSetHeader header;
  bool no_checksum = true;
  bool done = false;
  Crc64 checksum;
  std::uint64_t offset = 0;              // bytes read
  PageNumber last_page = 0;              // 0 before the first one
  std::vector<std::uint8_t> index;       // what the index must be for the frames so far
  std::vector<std::uint8_t> compressed;  // room for the largest block
  std::vector<std::uint8_t> page;
  std::unique_ptr<LZ4F_dctx, FreeContext> lz4_frame;  // made when the first one is met

  absl::Status ReadBytes(MutableByteView out) {
    std::size_t have = 0;
    while (have < out.size()) {
      ECHOFS_ASSIGN_OR_RETURN(const std::size_t n, source->Read(out.subspan(have)));
      if (n == 0) return Damaged(offset, "the file ends here");
      have += n;
      offset += n;
    }
    return absl::OkStatus();
  }

  absl::Status ReadHeader();
  absl::Status ReadPage(PageNumber number, std::uint16_t flags, const std::uint8_t* page_header);
  absl::Status ReadBlock(std::uint32_t size);
  absl::Status ReadLz4Frame();
  absl::Status ReadEnd();
};

absl::Status LtxDecoder::State::ReadHeader() {
  std::uint8_t bytes[kLtxHeaderSize];
  ECHOFS_RETURN_IF_ERROR(ReadBytes(bytes));
  if (std::memcmp(bytes, ltx::kMagic, sizeof(ltx::kMagic)) != 0) {
    return Damaged(0, "not an LTX file of version 3");
  }
  const std::uint32_t flags = LoadBe32(bytes + ltx::kFlagsAt);
  if ((flags & ~ltx::kNoChecksum) != 0) {
    return Damaged(ltx::kFlagsAt, fmt::format("unknown flags {:#x}", flags));
  }
  no_checksum = flags != 0;
  header.page_size = LoadBe32(bytes + ltx::kPageSizeAt);
  if (!IsValidPageSize(header.page_size)) {
    return Damaged(ltx::kPageSizeAt, fmt::format("impossible page size {}", header.page_size));
  }
  header.page_count = LoadBe32(bytes + ltx::kPageCountAt);
  header.min_txid = {LoadBe64(bytes + ltx::kMinTxidAt)};
  header.txid = {LoadBe64(bytes + ltx::kMaxTxidAt)};
  if (header.min_txid.value == 0 || header.min_txid > header.txid) {
    return Damaged(ltx::kMinTxidAt, fmt::format("impossible TXIDs {} to {}", header.min_txid.value,
                                                header.txid.value));
  }
  header.timestamp_ms = static_cast<std::int64_t>(LoadBe64(bytes + ltx::kTimestampAt));
  if (no_checksum && LoadBe64(bytes + ltx::kPreApplyChecksumAt) != 0) {
    return Damaged(ltx::kPreApplyChecksumAt, "a checksum where there is none");
  }
  const std::uint64_t wal_offset = LoadBe64(bytes + ltx::kWalOffsetAt);
  const std::uint64_t wal_size = LoadBe64(bytes + ltx::kWalSizeAt);
  if (wal_offset >> 62 != 0 || wal_size >> 62 != 0) {
    return Damaged(ltx::kWalOffsetAt, "impossible place in the WAL");
  }
  header.wal = {LoadBe32(bytes + ltx::kWalSalt1At), LoadBe32(bytes + ltx::kWalSalt2At), wal_offset,
                wal_offset + wal_size};
  header.node_id = LoadBe64(bytes + ltx::kNodeIdAt);
  header.term = {LoadBe64(bytes + ltx::kTermAt)};
  header.digest_after = LoadBe64(bytes + ltx::kDigestAfterAt);
  checksum.Add(bytes);
  return absl::OkStatus();
}

absl::Status LtxDecoder::State::ReadPage(PageNumber number, std::uint16_t flags,
                                         const std::uint8_t* page_header) {
  const std::uint64_t begin = offset - ltx::kPageHeaderSize;
  if (flags != 0 && flags != ltx::kSizedBlock) {
    return Damaged(begin + 4, fmt::format("unknown flags {:#x} of page {}", flags, number));
  }
  if (number <= last_page) {
    return Damaged(begin, fmt::format("page {} comes after page {}", number, last_page));
  }
  if (number > header.page_count) {
    return Damaged(begin, fmt::format("page {} is beyond the {} pages of the database", number,
                                      header.page_count));
  }
  if (number == LockPage(header.page_size)) {
    return Damaged(begin, fmt::format("page {} is the lock page", number));
  }
  checksum.Add(ByteView(page_header, ltx::kPageHeaderSize));
  if (flags == ltx::kSizedBlock) {
    std::uint8_t size[ltx::kBlockSizeFieldSize];
    ECHOFS_RETURN_IF_ERROR(ReadBytes(size));
    checksum.Add(size);
    ECHOFS_RETURN_IF_ERROR(ReadBlock(LoadBe32(size)));
  } else {
    ECHOFS_RETURN_IF_ERROR(ReadLz4Frame());
  }
  checksum.Add(page);
  last_page = number;
  ltx::AppendVarint(number, &index);
  ltx::AppendVarint(begin, &index);
  ltx::AppendVarint(offset - begin, &index);
  return absl::OkStatus();
}

absl::Status LtxDecoder::State::ReadBlock(std::uint32_t size) {
  const std::uint64_t begin = offset;
  if (size == 0 || size > compressed.size()) {
    return Damaged(begin - ltx::kBlockSizeFieldSize,
                   fmt::format("impossible compressed size {}", size));
  }
  ECHOFS_RETURN_IF_ERROR(ReadBytes(MutableByteView(compressed).first(size)));
  const int n = LZ4_decompress_safe(reinterpret_cast<const char*>(compressed.data()),
                                    reinterpret_cast<char*>(page.data()), static_cast<int>(size),
                                    static_cast<int>(page.size()));
  if (n != static_cast<int>(page.size())) {
    return Damaged(begin, fmt::format("the LZ4 block is not one page of {} bytes", page.size()));
  }
  return absl::OkStatus();
}

// An LZ4 frame ends where its end mark says; LZ4 asks for exactly as many bytes as it surely needs,
// so that nothing behind it is read.
absl::Status LtxDecoder::State::ReadLz4Frame() {
  const std::uint64_t begin = offset;
  if (lz4_frame == nullptr) {
    LZ4F_dctx* context = nullptr;
    if (LZ4F_isError(LZ4F_createDecompressionContext(&context, LZ4F_VERSION)) != 0) {
      return absl::ResourceExhaustedError("no memory to decompress an LZ4 frame");
    }
    lz4_frame.reset(context);
  }
  LZ4F_resetDecompressionContext(lz4_frame.get());
  std::size_t have = 0;
  std::size_t wanted = 7;  // the shortest header of a frame
  // A page never needs more: blocks that do not shrink are stored as they are.
  const std::uint64_t end_max = begin + 2 * std::uint64_t{header.page_size} + 256;
  while (wanted != 0) {
    if (wanted > end_max - offset) return Damaged(begin, "the LZ4 frame is too large for a page");
    std::size_t size = std::min(wanted, compressed.size());
    const std::uint8_t* input = compressed.data();
    ECHOFS_RETURN_IF_ERROR(ReadBytes(MutableByteView(compressed).first(size)));
    while (size != 0) {
      std::size_t consumed = size;
      std::size_t produced = page.size() - have;
      wanted = LZ4F_decompress(lz4_frame.get(), page.data() + have, &produced, input, &consumed,
                               nullptr);
      if (LZ4F_isError(wanted) != 0) {
        return Damaged(begin, fmt::format("the LZ4 frame: {}", LZ4F_getErrorName(wanted)));
      }
      if (consumed == 0 && produced == 0)
        return Damaged(begin, "the LZ4 frame has more than a page");
      have += produced;
      input += consumed;
      size -= consumed;
    }
  }
  if (have != page.size()) return Damaged(begin, "the LZ4 frame has less than a page");
  return absl::OkStatus();
}

absl::Status LtxDecoder::State::ReadEnd() {
  ltx::AppendVarint(0, &index);
  for (std::size_t at = 0; at < index.size();) {
    std::uint8_t piece[4096];
    const auto part = MutableByteView(piece).first(std::min(sizeof(piece), index.size() - at));
    const std::uint64_t begin = offset;
    ECHOFS_RETURN_IF_ERROR(ReadBytes(part));
    const auto differs =
        std::mismatch(part.begin(), part.end(), index.begin() + static_cast<std::ptrdiff_t>(at))
            .first;
    if (differs != part.end()) {
      return Damaged(begin + static_cast<std::uint64_t>(differs - part.begin()),
                     "the page index does not fit the pages");
    }
    checksum.Add(part);
    at += part.size();
  }
  std::uint8_t size[8];
  ECHOFS_RETURN_IF_ERROR(ReadBytes(size));
  if (LoadBe64(size) != index.size()) {
    return Damaged(offset - sizeof(size), "wrong size of the page index");
  }
  checksum.Add(size);
  std::uint8_t trailer[kLtxTrailerSize];
  ECHOFS_RETURN_IF_ERROR(ReadBytes(trailer));
  if (no_checksum && LoadBe64(trailer) != 0) {
    return Damaged(offset - sizeof(trailer), "a checksum where there is none");
  }
  checksum.Add(ByteView(trailer, 8));
  if (LoadBe64(trailer + 8) != (checksum.Value() | ltx::kChecksumMark)) {
    return Damaged(offset - 8, "wrong checksum of the file");
  }
  std::uint8_t more;
  ECHOFS_ASSIGN_OR_RETURN(const std::size_t n, source->Read({&more, 1}));
  if (n != 0) return Damaged(offset, "the file goes on after its end");
  return absl::OkStatus();
}

LtxDecoder::LtxDecoder(std::unique_ptr<State> state) : state_(std::move(state)) {}
LtxDecoder::~LtxDecoder() = default;

const ChangeSetHeader& LtxDecoder::header() const { return state_->header; }

absl::StatusOr<std::unique_ptr<LtxDecoder>> LtxDecoder::Start(ByteSource* source) {
  auto state = std::make_unique<State>();
  state->source = source;
  ECHOFS_RETURN_IF_ERROR(state->ReadHeader());
  const auto page_size = static_cast<int>(state->header.page_size);
  state->compressed.resize(static_cast<std::size_t>(LZ4_compressBound(page_size)));
  state->page.resize(state->header.page_size);
  return std::unique_ptr<LtxDecoder>(new LtxDecoder(std::move(state)));
}

absl::StatusOr<std::optional<LtxDecoder::Page>> LtxDecoder::Next() {
  State& s = *state_;
  if (s.done) return std::optional<Page>();
  std::uint8_t page_header[ltx::kPageHeaderSize];
  ECHOFS_RETURN_IF_ERROR(s.ReadBytes(page_header));
  const PageNumber number = LoadBe32(page_header);
  const std::uint16_t flags = LoadBe16(page_header + 4);
  if (number == 0 && flags == 0) {
    s.checksum.Add(page_header);
    ECHOFS_RETURN_IF_ERROR(s.ReadEnd());
    s.done = true;
    return std::optional<Page>();
  }
  ECHOFS_RETURN_IF_ERROR(s.ReadPage(number, flags, page_header));
  return std::optional<Page>(Page{number, s.page});
}

}  // namespace echofs
