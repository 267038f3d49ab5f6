#include "fs/wal_index.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "replication/status_macros.h"

namespace echofs::fs {
namespace {

constexpr std::size_t kHashOffset = 16384;  // of the hash slots within every region
constexpr std::size_t kReadMarksEnd =
    WalIndex::kReadMarksOffset + sqlite::kReadMarkCount * sizeof(std::uint32_t);
// Two changed places closer than this are stored in one piece: a store costs about as much as
// copying some kilobytes.
constexpr std::size_t kJoinGap = 2048;

std::uint32_t FirstSlot(PageNumber page) { return (page * 383) & (WalIndex::kSlots - 1); }
std::uint32_t NextSlot(std::uint32_t slot) { return (slot + 1) & (WalIndex::kSlots - 1); }
std::size_t SlotOffset(std::uint32_t slot) { return kHashOffset + slot * sizeof(std::uint16_t); }

// Joins the changed words (offsets in the region, multiples of 8) into few ranges.
void JoinWords(std::size_t region, std::vector<std::size_t>* words,
               std::vector<WalIndex::Range>* ranges) {
  std::sort(words->begin(), words->end());
  const std::uint64_t base = region * WalIndex::kRegionSize;
  for (std::size_t i = 0; i < words->size();) {
    const std::size_t first = (*words)[i];
    std::size_t last = first;
    while (++i < words->size() && (*words)[i] - last <= kJoinGap) last = (*words)[i];
    ranges->push_back({base + first, last + 8 - first});
  }
}

}  // namespace

WalIndex::WalIndex() { regions_.push_back(std::make_unique<Region>()); }

void WalIndex::Reserve(std::uint64_t size) {
  absl::MutexLock lock(&mutex_);
  while (regions_.size() * kRegionSize < size) regions_.push_back(std::make_unique<Region>());
}

template <typename T>
T WalIndex::Load(std::size_t region, std::size_t offset) const {
  T value;
  std::memcpy(&value, regions_[region]->bytes.data() + offset, sizeof(T));
  return value;
}

template <typename T>
void WalIndex::Save(std::size_t region, std::size_t offset, T value) {
  std::memcpy(regions_[region]->bytes.data() + offset, &value, sizeof(T));
}

std::uint32_t WalIndex::FramesBefore(std::size_t region) {
  return region == 0 ? 0
                     : kFirstRegionFrames + static_cast<std::uint32_t>(region - 1) * kRegionFrames;
}

WalIndex::Place WalIndex::PlaceOf(std::uint32_t frame) {
  ECHOFS_CHECK(frame != 0);
  const std::size_t region =
      (std::size_t{frame} + kRegionFrames - kFirstRegionFrames - 1) / kRegionFrames;
  return {region, frame - FramesBefore(region), region == 0 ? kTablesOffset : 0};
}

void WalIndex::AppendOne(const Place& place, PageNumber page, std::vector<std::size_t>* words) {
  const std::size_t number = place.numbers_offset + (place.index - 1) * sizeof(std::uint32_t);
  Save<std::uint32_t>(place.region, number, page);
  std::uint32_t slot = FirstSlot(page);
  while (Load<std::uint16_t>(place.region, SlotOffset(slot)) != 0) slot = NextSlot(slot);
  Save<std::uint16_t>(place.region, SlotOffset(slot), static_cast<std::uint16_t>(place.index));
  words->push_back(number & ~std::size_t{7});
  words->push_back(SlotOffset(slot) & ~std::size_t{7});
}

std::vector<WalIndex::Range> WalIndex::Append(std::span<const PageNumber> pages) {
  absl::MutexLock lock(&mutex_);
  std::vector<Range> ranges;
  std::vector<std::size_t> words;
  for (std::size_t i = 0; i < pages.size();) {
    const std::size_t region = PlaceOf(table_frames_ + 1).region;
    while (regions_.size() <= region) regions_.push_back(std::make_unique<Region>());
    const std::size_t begin = region == 0 ? kTablesOffset : 0;
    const bool first = PlaceOf(table_frames_ + 1).index == 1;
    if (first) {
      std::fill(regions_[region]->bytes.begin() + begin, regions_[region]->bytes.end(), 0);
    }
    words.clear();
    for (; i < pages.size() && PlaceOf(table_frames_ + 1).region == region; ++i) {
      AppendOne(PlaceOf(++table_frames_), pages[i], &words);
    }
    if (first) {
      ranges.push_back({region * kRegionSize + begin, kRegionSize - begin});
    } else {
      JoinWords(region, &words, &ranges);
    }
  }
  return ranges;
}

std::vector<WalIndex::Range> WalIndex::CleanTail() {
  absl::MutexLock lock(&mutex_);
  const std::uint32_t max_frame = header_.max_frame;
  const bool dirty = table_frames_ > max_frame;
  table_frames_ = max_frame;
  // Regions that begin after max_frame are cleared when their first frame is appended.
  if (!dirty || max_frame == 0) return {};
  const Place place = PlaceOf(max_frame);
  for (std::uint32_t slot = 0; slot < kSlots; ++slot) {
    if (Load<std::uint16_t>(place.region, SlotOffset(slot)) > place.index) {
      Save<std::uint16_t>(place.region, SlotOffset(slot), 0);
    }
  }
  auto& bytes = regions_[place.region]->bytes;
  std::fill(bytes.begin() + place.numbers_offset + place.index * sizeof(std::uint32_t),
            bytes.begin() + kHashOffset, 0);
  const std::size_t begin = place.region == 0 ? kTablesOffset : 0;
  return {{place.region * kRegionSize + begin, kRegionSize - begin}};
}

std::array<std::uint8_t, WalIndex::kHeaderSize> WalIndex::EncodeHeader(
    const WalIndexHeader& header) {
  std::array<std::uint8_t, kHeaderSize> out = {};
  const auto put = [&out](std::size_t offset, auto value) {
    std::memcpy(out.data() + offset, &value, sizeof(value));
  };
  put(0, sqlite::kWalVersion);
  put(8, header.change_counter);
  out[12] = 1;
  out[13] = header.big_endian_checksum ? 1 : 0;
  put(14, static_cast<std::uint16_t>((header.page_size & 0xff00) | (header.page_size >> 16)));
  put(16, header.max_frame);
  put(20, header.page_count);
  put(24, header.frame_checksum.s0);
  put(28, header.frame_checksum.s1);
  StoreBe32(out.data() + 32, header.salt1);
  StoreBe32(out.data() + 36, header.salt2);
  const sqlite::WalChecksum sum = sqlite::ContinueWalChecksum(
      {}, ByteView(out).first(40), std::endian::native == std::endian::big);
  put(40, sum.s0);
  put(44, sum.s1);
  return out;
}

std::array<std::uint8_t, WalIndex::kHeaderSize> WalIndex::Publish(const WalIndexHeader& header) {
  const std::array<std::uint8_t, kHeaderSize> bytes = EncodeHeader(header);
  absl::MutexLock lock(&mutex_);
  if (header.max_frame == 0) table_frames_ = 0;
  ECHOFS_CHECK(header.max_frame <= table_frames_);
  header_ = header;
  std::copy(bytes.begin(), bytes.end(), regions_[0]->bytes.begin() + kHeaderSize);
  std::copy(bytes.begin(), bytes.end(), regions_[0]->bytes.begin());
  return bytes;
}

WalIndex::Range WalIndex::ClearHeaders() {
  absl::MutexLock lock(&mutex_);
  std::fill_n(regions_[0]->bytes.begin(), 2 * kHeaderSize, 0);
  return {0, 2 * kHeaderSize};
}

WalIndexHeader WalIndex::header() const {
  absl::MutexLock lock(&mutex_);
  return header_;
}

void WalIndex::SetBackfill(std::uint32_t frame) {
  absl::MutexLock lock(&mutex_);
  Save<std::uint32_t>(0, kBackfillOffset, frame);
}

void WalIndex::SetBackfillAttempted(std::uint32_t frame) {
  absl::MutexLock lock(&mutex_);
  Save<std::uint32_t>(0, kBackfillAttemptedOffset, frame);
}

std::uint32_t WalIndex::backfill() const {
  absl::MutexLock lock(&mutex_);
  return Load<std::uint32_t>(0, kBackfillOffset);
}

void WalIndex::SetReadMark(int slot, std::uint32_t frame) {
  absl::MutexLock lock(&mutex_);
  Save<std::uint32_t>(0, kReadMarksOffset + slot * sizeof(std::uint32_t), frame);
}

std::uint32_t WalIndex::ReadMark(int slot) const {
  absl::MutexLock lock(&mutex_);
  return Load<std::uint32_t>(0, kReadMarksOffset + slot * sizeof(std::uint32_t));
}

std::uint32_t WalIndex::FindFrame(PageNumber page, std::uint32_t max_frame) const {
  if (max_frame == 0) return 0;
  absl::MutexLock lock(&mutex_);
  ECHOFS_CHECK(max_frame <= table_frames_);
  for (std::size_t region = PlaceOf(max_frame).region + 1; region-- > 0;) {
    const std::uint32_t before = FramesBefore(region);
    const std::size_t numbers = region == 0 ? kTablesOffset : 0;
    std::uint32_t found = 0;
    for (std::uint32_t slot = FirstSlot(page);; slot = NextSlot(slot)) {
      const std::uint32_t index = Load<std::uint16_t>(region, SlotOffset(slot));
      if (index == 0) break;  // at most half of the slots are in use
      if (before + index <= max_frame &&
          Load<std::uint32_t>(region, numbers + (index - 1) * sizeof(std::uint32_t)) == page) {
        found = std::max(found, before + index);
      }
    }
    if (found != 0) return found;
  }
  return 0;
}

PageNumber WalIndex::PageOfFrame(std::uint32_t frame) const {
  absl::MutexLock lock(&mutex_);
  ECHOFS_CHECK(frame <= table_frames_);
  const Place place = PlaceOf(frame);
  return Load<std::uint32_t>(place.region,
                             place.numbers_offset + (place.index - 1) * sizeof(std::uint32_t));
}

std::uint64_t WalIndex::size() const {
  absl::MutexLock lock(&mutex_);
  return std::uint64_t{regions_.size()} * kRegionSize;
}

std::size_t WalIndex::Read(std::uint64_t offset, MutableByteView out) const {
  absl::MutexLock lock(&mutex_);
  std::size_t done = 0;
  while (done < out.size()) {
    const std::uint64_t at = offset + done;
    if (at / kRegionSize >= regions_.size()) break;
    const std::size_t inside = at % kRegionSize;
    const std::size_t n = std::min(out.size() - done, kRegionSize - inside);
    std::memcpy(out.data() + done, regions_[at / kRegionSize]->bytes.data() + inside, n);
    done += n;
  }
  return done;
}

void WalIndex::MergeWrite(std::uint64_t offset, ByteView bytes) {
  const std::uint64_t begin = std::max<std::uint64_t>(offset, kReadMarksOffset);
  const std::uint64_t end = std::min<std::uint64_t>(offset + bytes.size(), kReadMarksEnd);
  if (begin >= end) return;
  absl::MutexLock lock(&mutex_);
  std::copy(bytes.begin() + (begin - offset), bytes.begin() + (end - offset),
            regions_[0]->bytes.begin() + begin);
}

}  // namespace echofs::fs
