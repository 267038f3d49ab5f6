#include "fs/applied_positions.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>

#include "replication/status_macros.h"

namespace echofs::fs {
namespace {

constexpr std::size_t kSlotSize = 64;  // also of the header
constexpr std::size_t kChecksumOffset = kSlotSize - 8;
constexpr char kMagic[] = "ECHOAPPL";
constexpr std::uint32_t kFormatVersion = 2;
constexpr std::uint64_t kFileSizeMax = 1ull << 30;  // over 20 million databases

using SlotBytes = std::array<std::uint8_t, kSlotSize>;

std::uint64_t Checksum(const SlotBytes& bytes) {
  return XXH3_64bits(bytes.data(), kChecksumOffset);
}

SlotBytes HeaderBytes() {
  SlotBytes bytes{};
  std::memcpy(bytes.data(), kMagic, 8);
  StoreBe32(bytes.data() + 8, kFormatVersion);
  return bytes;
}

absl::Status CheckHeader(const std::string& path, const SlotBytes& bytes) {
  if (std::memcmp(bytes.data(), kMagic, 8) != 0) {
    return absl::DataLossError(
        fmt::format("{} is damaged: wrong magic at offset 0. Remove it: the databases are then "
                    "copied again from the "
                    "primary",
                    path));
  }
  const std::uint32_t version = LoadBe32(bytes.data() + 8);
  if (version > kFormatVersion) {
    return absl::FailedPreconditionError(
        fmt::format("{} was written by a newer echofs; use that version", path));
  }
  if (version < kFormatVersion) {
    return absl::FailedPreconditionError(
        fmt::format("{} was written by an older echofs. Remove it: the databases are then copied "
                    "again from the primary",
                    path));
  }
  return absl::OkStatus();
}

}  // namespace

AppliedPositions::Key AppliedPositions::KeyOf(const std::string& database) {
  const XXH128_hash_t hash = XXH3_128bits(database.data(), database.size());
  return {hash.high64, hash.low64};
}

absl::StatusOr<std::unique_ptr<AppliedPositions>> AppliedPositions::Open(Storage* storage,
                                                                         const std::string& path) {
  OpenOptions options;
  options.create = true;
  options.mode = 0600;
  ECHOFS_ASSIGN_OR_RETURN(std::unique_ptr<File> file, storage->Open(path, options));
  ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t size, file->Size());
  if (size > kFileSizeMax) return absl::DataLossError(fmt::format("{} is too large", path));
  std::unique_ptr<AppliedPositions> positions(new AppliedPositions(std::move(file)));
  if (size < kSlotSize) {
    ECHOFS_RETURN_IF_ERROR(positions->file_->WriteAt(0, HeaderBytes()));
    // Slots are mostly not synced. A power loss may keep any of them, but not without this.
    ECHOFS_RETURN_IF_ERROR(positions->file_->Sync());
    ECHOFS_RETURN_IF_ERROR(storage->SyncDirectory(path.substr(0, path.rfind('/'))));
    return positions;
  }
  SlotBytes bytes;
  ECHOFS_RETURN_IF_ERROR(ReadZeroFilled(*positions->file_, 0, bytes));
  ECHOFS_RETURN_IF_ERROR(CheckHeader(path, bytes));
  absl::MutexLock lock(&positions->mutex_);
  positions->slot_count_ = static_cast<std::uint32_t>(size / kSlotSize - 1);
  for (std::uint32_t number = 0; number < positions->slot_count_; ++number) {
    ECHOFS_RETURN_IF_ERROR(ReadZeroFilled(*positions->file_, (number + 1ull) * kSlotSize, bytes));
    if (LoadBe64(bytes.data() + kChecksumOffset) != Checksum(bytes)) {
      positions->free_.push_back(number);
      continue;
    }
    const Key key = {LoadBe64(bytes.data()), LoadBe64(bytes.data() + 8)};
    AppliedPosition position{{LoadBe64(bytes.data() + 16)},
                             {LoadBe64(bytes.data() + 24)},
                             {LoadBe64(bytes.data() + 32)},
                             {}};
    position.wal.salt1 = LoadBe32(bytes.data() + 40);
    position.wal.salt2 = LoadBe32(bytes.data() + 44);
    position.wal.end_offset = LoadBe64(bytes.data() + 48);
    positions->slots_[key] = {number, position, ++positions->generations_};
  }
  return positions;
}

std::optional<AppliedPosition> AppliedPositions::Get(const std::string& database) {
  absl::MutexLock lock(&mutex_);
  const auto it = slots_.find(KeyOf(database));
  if (it == slots_.end()) return std::nullopt;
  return it->second.position;
}

absl::Status AppliedPositions::WriteSlot(std::uint32_t number, const Key* key,
                                         const AppliedPosition& position) {
  SlotBytes bytes{};
  if (key != nullptr) {
    StoreBe64(bytes.data(), (*key)[0]);
    StoreBe64(bytes.data() + 8, (*key)[1]);
    StoreBe64(bytes.data() + 16, position.index.value);
    StoreBe64(bytes.data() + 24, position.txid.value);
    StoreBe64(bytes.data() + 32, position.synced_index.value);
    StoreBe32(bytes.data() + 40, position.wal.salt1);
    StoreBe32(bytes.data() + 44, position.wal.salt2);
    StoreBe64(bytes.data() + 48, position.wal.end_offset);
    StoreBe64(bytes.data() + kChecksumOffset, Checksum(bytes));
  }
  return file_->WriteAt((number + 1ull) * kSlotSize, bytes);
}

AppliedPositions::Slot& AppliedPositions::Find(const Key& key) {
  const auto it = slots_.find(key);
  if (it != slots_.end()) return it->second;
  std::uint32_t number = slot_count_;
  if (free_.empty()) {
    ++slot_count_;
  } else {
    number = free_.back();
    free_.pop_back();
  }
  return slots_.emplace(key, Slot{number, {}, ++generations_}).first->second;
}

absl::Status AppliedPositions::Set(const std::string& database, LogIndex index, Txid txid) {
  absl::MutexLock lock(&mutex_);
  const Key key = KeyOf(database);
  Slot& slot = Find(key);
  slot.position.index = index;
  slot.position.txid = txid;
  slot.position.wal = {};
  return WriteSlot(slot.number, &key, slot.position);
}

absl::Status AppliedPositions::Set(const std::string& database, const AppliedPosition& position) {
  absl::MutexLock lock(&mutex_);
  const Key key = KeyOf(database);
  Slot& slot = Find(key);
  slot.position = position;
  return WriteSlot(slot.number, &key, slot.position);
}

std::uint64_t AppliedPositions::Generation(const std::string& database) {
  absl::MutexLock lock(&mutex_);
  const auto it = slots_.find(KeyOf(database));
  return it == slots_.end() ? 0 : it->second.generation;
}

absl::Status AppliedPositions::SetSynced(const std::string& database, LogIndex index,
                                         std::uint64_t generation) {
  absl::MutexLock lock(&mutex_);
  const Key key = KeyOf(database);
  const auto it = slots_.find(key);
  if (it == slots_.end() || it->second.generation != generation) return absl::OkStatus();
  it->second.position.synced_index = index;
  return WriteSlot(it->second.number, &key, it->second.position);
}

absl::Status AppliedPositions::Remove(const std::string& database) {
  absl::MutexLock lock(&mutex_);
  const auto it = slots_.find(KeyOf(database));
  if (it == slots_.end()) return absl::OkStatus();
  const std::uint32_t number = it->second.number;
  slots_.erase(it);
  free_.push_back(number);
  return WriteSlot(number, nullptr, {});
}

absl::Status AppliedPositions::Sync() { return file_->Sync(); }

}  // namespace echofs::fs
