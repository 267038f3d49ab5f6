#include <fmt/format.h>
#include <lz4.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "replication/crc64.h"
#include "replication/digest.h"
#include "replication/ltx.h"
#include "replication/ltx_format.h"
#include "replication/status_macros.h"

namespace echofs {

struct LtxEncoder::State {
  ByteSink* sink;
  ChangeSetHeader header;
  Crc64 checksum;
  std::uint64_t offset = 0;         // bytes written
  PageNumber last_page = 0;         // 0 before the first one
  std::vector<std::uint8_t> index;  // varints of the frames so far
  std::vector<std::uint8_t> frame;  // room for the largest frame

  absl::Status Write(ByteView bytes) {
    offset += bytes.size();
    return sink->Write(bytes);
  }
};

namespace {

absl::Status CheckHeader(const ChangeSetHeader& header) {
  if (!IsValidPageSize(header.page_size)) {
    return absl::InvalidArgumentError(fmt::format("impossible page size {}", header.page_size));
  }
  if (header.min_txid.value == 0 || header.min_txid > header.txid) {
    return absl::InvalidArgumentError(
        fmt::format("impossible TXIDs {} to {}", header.min_txid.value, header.txid.value));
  }
  if (header.wal.begin_offset > header.wal.end_offset || header.wal.end_offset >> 63 != 0) {
    return absl::InvalidArgumentError("impossible place in the WAL");
  }
  return absl::OkStatus();
}

// A block of LZ4 that depends on no other; `out` has room for its worst case. The table of a thread's last block is
// used again, which spares clearing it: for a page that costs a third of compressing. 0 when there is no memory.
int Compress(ByteView page, MutableByteView out) {
  static thread_local const std::unique_ptr<LZ4_stream_t, int (*)(LZ4_stream_t*)> stream(
      LZ4_createStream(), &LZ4_freeStream);
  if (stream == nullptr) return 0;
  constexpr int kAcceleration = 1;
  LZ4_resetStream_fast(stream.get());
  return LZ4_compress_fast_continue(
      stream.get(), reinterpret_cast<const char*>(page.data()), reinterpret_cast<char*>(out.data()),
      static_cast<int>(page.size()), static_cast<int>(out.size()), kAcceleration);
}

}  // namespace

LtxEncoder::LtxEncoder(std::unique_ptr<State> state) : state_(std::move(state)) {}
LtxEncoder::~LtxEncoder() = default;

absl::StatusOr<std::unique_ptr<LtxEncoder>> LtxEncoder::Start(ByteSink* sink,
                                                              const ChangeSetHeader& header) {
  ECHOFS_RETURN_IF_ERROR(CheckHeader(header));
  auto state = std::make_unique<State>();
  state->sink = sink;
  state->header = header;
  state->frame.resize(
      ltx::kPageHeaderSize + ltx::kBlockSizeFieldSize +
      static_cast<std::size_t>(LZ4_compressBound(static_cast<int>(header.page_size))));
  std::uint8_t bytes[kLtxHeaderSize] = {};
  std::memcpy(bytes, ltx::kMagic, sizeof(ltx::kMagic));
  StoreBe32(bytes + ltx::kFlagsAt, ltx::kNoChecksum);
  StoreBe32(bytes + ltx::kPageSizeAt, header.page_size);
  StoreBe32(bytes + ltx::kPageCountAt, header.page_count);
  StoreBe64(bytes + ltx::kMinTxidAt, header.min_txid.value);
  StoreBe64(bytes + ltx::kMaxTxidAt, header.txid.value);
  StoreBe64(bytes + ltx::kTimestampAt, static_cast<std::uint64_t>(header.timestamp_ms));
  StoreBe64(bytes + ltx::kWalOffsetAt, header.wal.begin_offset);
  StoreBe64(bytes + ltx::kWalSizeAt, header.wal.end_offset - header.wal.begin_offset);
  StoreBe32(bytes + ltx::kWalSalt1At, header.wal.salt1);
  StoreBe32(bytes + ltx::kWalSalt2At, header.wal.salt2);
  StoreBe64(bytes + ltx::kNodeIdAt, header.node_id);
  StoreBe64(bytes + ltx::kTermAt, header.term.value);
  StoreBe64(bytes + ltx::kDigestAfterAt, header.digest_after);
  state->checksum.Add(bytes);
  ECHOFS_RETURN_IF_ERROR(state->Write(bytes));
  return std::unique_ptr<LtxEncoder>(new LtxEncoder(std::move(state)));
}

absl::Status LtxEncoder::AddPage(PageNumber number, ByteView page) {
  State& s = *state_;
  if (page.size() != s.header.page_size) {
    return absl::InvalidArgumentError(
        fmt::format("page {} has {} bytes, not {}", number, page.size(), s.header.page_size));
  }
  if (number <= s.last_page) {
    return absl::InvalidArgumentError(
        fmt::format("page {} comes after page {}", number, s.last_page));
  }
  if (number == LockPage(s.header.page_size)) {
    return absl::InvalidArgumentError(fmt::format("page {} is the lock page", number));
  }
  if (number > s.header.page_count) {
    return absl::InvalidArgumentError(
        fmt::format("page {} is beyond the {} pages of the database", number, s.header.page_count));
  }
  constexpr std::size_t kBefore = ltx::kPageHeaderSize + ltx::kBlockSizeFieldSize;
  std::uint8_t* frame = s.frame.data();
  const int compressed = Compress(page, MutableByteView(s.frame).subspan(kBefore));
  if (compressed <= 0) return absl::ResourceExhaustedError("no memory to compress a page");
  StoreBe32(frame, number);
  StoreBe16(frame + 4, ltx::kSizedBlock);
  StoreBe32(frame + ltx::kPageHeaderSize, static_cast<std::uint32_t>(compressed));
  s.checksum.Add(ByteView(frame, kBefore));
  s.checksum.Add(page);
  const std::size_t frame_size = kBefore + static_cast<std::size_t>(compressed);
  ltx::AppendVarint(number, &s.index);
  ltx::AppendVarint(s.offset, &s.index);
  ltx::AppendVarint(frame_size, &s.index);
  s.last_page = number;
  return s.Write(ByteView(frame, frame_size));
}

absl::Status LtxEncoder::Finish() {
  State& s = *state_;
  const std::uint8_t end_of_frames[ltx::kPageHeaderSize] = {};
  ltx::AppendVarint(0, &s.index);
  std::uint8_t index_size[8];
  StoreBe64(index_size, s.index.size());
  std::uint8_t trailer[kLtxTrailerSize] = {};  // the post-apply checksum is 0
  s.checksum.Add(end_of_frames);
  s.checksum.Add(s.index);
  s.checksum.Add(index_size);
  s.checksum.Add(ByteView(trailer, 8));
  StoreBe64(trailer + 8, s.checksum.Value() | ltx::kChecksumMark);
  std::vector<std::uint8_t> tail;
  tail.reserve(sizeof(end_of_frames) + s.index.size() + sizeof(index_size) + sizeof(trailer));
  tail.insert(tail.end(), std::begin(end_of_frames), std::end(end_of_frames));
  tail.insert(tail.end(), s.index.begin(), s.index.end());
  tail.insert(tail.end(), std::begin(index_size), std::end(index_size));
  tail.insert(tail.end(), std::begin(trailer), std::end(trailer));
  return s.Write(tail);
}

std::string LtxFileName(Txid min, Txid max) {
  return fmt::format("{:016x}-{:016x}.ltx", min.value, max.value);
}

}  // namespace echofs
