// Where the database files of a replica stand: a small file beside the databases, `applied`.
//
// Layout: header of 64 bytes, magic "ECHOAPPL", format version u32 = 2, zeros; then slots of 64 bytes:
//      0  XXH3_128 of the database's name     40  salt-1 and salt-2 of the WAL, 2 x u32
//     16  index of the applied entry u64      48  bytes of the WAL that the log has u64
//     24  TXID of the applied entry u64       56  XXH3_64 of bytes 0..55
//     32  index of the synced entry u64
// all zero for a free slot. Big-endian.
//
// A slot is written after its entry has been applied, so at a restart the files hold this entry or the next
// one, or a part of the next one: recovery applies the next one again. The synced entry is what the files are
// sure to hold after a crash of the machine. The WAL is set when a replica becomes the primary, and counts as
// long as the log has no later entry of the database: entries that another node made know that one's WAL.
//
// The slot of a database that is deleted goes after its files. So a slot of a database that the log has as deleted says
// that some of the files may still be there; recovery removes them, or the database would stay here for ever, and would be in the
// way when it is made again.
//
// Indexes are believed to be those of the log that this node has. Whoever takes entries out of the log removes the
// slots of the databases that hold them, durably, before (replication/log_rewind.h).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "replication/change_set.h"
#include "replication/ids.h"
#include "replication/storage.h"

namespace echofs::fs {

struct AppliedPosition {
  LogIndex index;
  Txid txid;
  LogIndex synced_index;
  WalPosition wal;  // without begin_offset
};

// Thread-safe.
class AppliedPositions {
 public:
  // Slots whose checksum is wrong count as free: their databases are copied again.
  static absl::StatusOr<std::unique_ptr<AppliedPositions>> Open(Storage* storage,
                                                                const std::string& path);
  std::optional<AppliedPosition> Get(const std::string& database) ABSL_LOCKS_EXCLUDED(mutex_);
  // An entry was applied. Keeps the synced index.
  absl::Status Set(const std::string& database, LogIndex index, Txid txid)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Set(const std::string& database, const AppliedPosition& position)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // The database's files have been synced when they held the entry `index`. `generation` is what Generation said before
  // that index was looked up: does nothing when the slot was removed since, for then the index may be of another history.
  absl::Status SetSynced(const std::string& database, LogIndex index, std::uint64_t generation)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Another number each time that the database gets a slot, in the life of this object; 0 when it has none.
  std::uint64_t Generation(const std::string& database) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Remove(const std::string& database) ABSL_LOCKS_EXCLUDED(mutex_);
  // Makes the slots durable.
  absl::Status Sync() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  using Key = std::array<std::uint64_t, 2>;
  struct Slot {
    std::uint32_t number;
    AppliedPosition position;
    std::uint64_t generation;
  };
  explicit AppliedPositions(std::unique_ptr<File> file) : file_(std::move(file)) {}
  static Key KeyOf(const std::string& database);
  Slot& Find(const Key& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status WriteSlot(std::uint32_t number, const Key* key, const AppliedPosition& position)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::unique_ptr<File> file_;
  absl::Mutex mutex_;
  absl::flat_hash_map<Key, Slot> slots_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::uint32_t> free_ ABSL_GUARDED_BY(mutex_);
  std::uint32_t slot_count_ ABSL_GUARDED_BY(mutex_) = 0;
  std::uint64_t generations_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace echofs::fs
