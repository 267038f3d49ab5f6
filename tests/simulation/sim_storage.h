// A disk in memory (replication/storage.h) that can lose what was not synced, be full, and lose its power between two
// operations.
//
// What a power loss leaves, by chance:
//   content   Each file keeps what its last Sync made durable and a prefix of the changes after it. Of the writes behind
//             that prefix, up to the next truncation, any may have reached the disk too, whole or in part.
//   names     Directories are there once they were made. Each keeps what its last SyncDirectory made durable and a
//             prefix of the changes after it, as a journal does.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "replication/storage.h"
#include "tests/simulation/random.h"

namespace echofs::sim {

// Not thread-safe, but of a single-threaded run.
class SimStorage final : public Storage {
 public:
  // `random` must outlive it.
  explicit SimStorage(Random* random) : random_(random) {}

  // ---- Faults ----
  // While true, writes that need room fail with ENOSPC.
  void SetFull(bool full) { full_ = full; }
  // The power goes after `operations` more changes: from then on every operation fails and changes nothing, until
  // PowerLoss.
  void PowerOffAfter(std::uint64_t operations) { operations_left_ = operations; }
  bool powered() const { return powered_; }
  // Forgets what was not synced, by chance not all of it, and has power again. No file may be open.
  void PowerLoss();
  // As after the end of a process alone: nothing is lost.
  void Revive();

  // ---- Storage ----
  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path,
                                             const OpenOptions& options) override;
  absl::Status Remove(const std::string& path) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status MakeDirectories(const std::string& path) override;
  absl::Status SyncDirectory(const std::string& path) override;
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override;
  absl::StatusOr<bool> Exists(const std::string& path) override;
  absl::StatusOr<std::uint64_t> FreeBytes(const std::string& path) override;

 private:
  class OpenFile;
  struct Change {  // of a file's content
    bool truncation = false;
    std::uint64_t offset = 0;  // or the new size
    std::vector<std::uint8_t> bytes;
  };
  struct Inode {
    std::vector<std::uint8_t> content;
    std::vector<std::uint8_t> durable;
    std::vector<Change> changes;  // since `durable`
  };
  using Names = std::map<std::string, std::shared_ptr<Inode>>;  // by path
  struct NameChange {
    std::string removed;  // path, may be empty
    std::string added;    // path, may be empty
    std::shared_ptr<Inode> inode;
  };

  static void Apply(const Change& change, std::vector<std::uint8_t>* content);
  static void Apply(const NameChange& change, Names* names);
  // Counts an operation that changes something; an error when there is no power.
  absl::Status Operate(const std::string& path);
  void Record(const std::string& path, NameChange change);
  void LosePending(Inode* inode);

  Random* const random_;
  bool full_ = false;
  bool powered_ = true;
  std::uint64_t operations_left_ = 0;  // 0: no end
  Names names_;
  Names durable_names_;
  std::set<std::string> directories_;
  std::map<std::string, std::vector<NameChange>> name_changes_;  // by directory, since durable
};

}  // namespace echofs::sim
