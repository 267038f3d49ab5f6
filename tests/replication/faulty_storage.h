// A Storage for tests: fails chosen operations, and forgets what was not synced when the power
// goes.
//
// It works on real files through PosixStorage and keeps beside them what a disk would surely have:
// the content of each file at its last sync, and the names in each directory at its last sync. A
// directory counts as durable once it was made. Only files that are opened or renamed through this
// object are known to it.
#pragma once

#include <errno.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "replication/status_macros.h"
#include "replication/storage.h"

namespace echofs {

// Thread-safe.
class FaultyStorage final : public Storage {
 public:
  // Kinds of operations, to be joined with |.
  enum Kind : unsigned {
    kRead = 1,
    kWrite = 2,
    kTruncate = 4,
    kSync = 8,
    kOpen = 16,
    kRemove = 32,
    kRename = 64,
    kSyncDirectory = 128,
    kChanges = kWrite | kTruncate | kSync | kOpen | kRemove | kRename | kSyncDirectory,
    kAll = kChanges | kRead,
  };

  // From now on counts operations of these kinds, and fails the `k`-th of them (1 is the next one)
  // with `error`; all that follow too when `forever`. A write that fails has written half of its
  // bytes.
  void FailOperation(std::uint64_t k, unsigned kinds, int error, bool forever = false)
      ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    fail_ = Fault{k, kinds, error, forever};
    counted_ = 0;
    failed_ = 0;
  }
  void Heal() ABSL_LOCKS_EXCLUDED(mu_) { FailOperation(0, 0, 0); }
  // Operations that failed since FailOperation.
  std::uint64_t failed() const ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    return failed_;
  }

  // Operations that were counted since FailOperation.
  std::uint64_t counted() const ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    return counted_;
  }

  // What the kernel does every few seconds: the content of all files reaches the disk, unasked.
  void WriteBack() ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    for (const auto& [path, node] : live_) node->synced = ReadWhole(path);
  }

  // Puts the files into the state of a disk after a power loss, and heals. Without a seed nothing
  // is there that was not synced; with one, each sector of 512 bytes and each change of a directory
  // that was not synced is there or not by chance. Files that were open are of no use afterwards.
  void PowerLoss(std::optional<std::uint64_t> seed = std::nullopt) ABSL_LOCKS_EXCLUDED(mu_);

  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path,
                                             const OpenOptions& options) override;
  absl::Status Remove(const std::string& path) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status MakeDirectories(const std::string& path) override {
    return base_->MakeDirectories(path);
  }
  absl::Status SyncDirectory(const std::string& path) override;
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    return base_->List(path);
  }
  absl::StatusOr<bool> Exists(const std::string& path) override { return base_->Exists(path); }
  absl::StatusOr<std::uint64_t> FreeBytes(const std::string& path) override {
    return base_->FreeBytes(path);
  }

 private:
  using Bytes = std::vector<std::uint8_t>;

  // A file apart from its names.
  struct Node {
    Bytes synced;
  };
  using Names = std::map<std::string, std::shared_ptr<Node>>;

  struct Fault {
    std::uint64_t k = 0;  // 0: none
    unsigned kinds = 0;
    int error = 0;
    bool forever = false;
  };

  // A change of a directory that was not synced yet. Create: only `to`; removal: only `from`.
  struct Change {
    std::string from, to;
    std::shared_ptr<Node> node;
  };

  class FaultyFile;

  static std::string DirectoryOf(const std::string& path) {
    return path.substr(0, path.find_last_of('/'));
  }
  static void Make(const Change& change, Names* names) {
    if (!change.from.empty()) names->erase(change.from);
    if (!change.to.empty()) (*names)[change.to] = change.node;
  }
  Bytes ReadWhole(const std::string& path) const;
  void WriteWhole(const std::string& path, const Bytes& content) const;
  absl::Status Admit(Kind kind, const std::string& path) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Storage* const base_ = PosixStorage();
  mutable absl::Mutex mu_;
  Fault fail_ ABSL_GUARDED_BY(mu_);
  std::uint64_t counted_ ABSL_GUARDED_BY(mu_) = 0;
  std::uint64_t failed_ ABSL_GUARDED_BY(mu_) = 0;
  std::uint64_t boots_ ABSL_GUARDED_BY(mu_) = 0;
  Names live_ ABSL_GUARDED_BY(mu_);
  Names durable_ ABSL_GUARDED_BY(mu_);
  std::vector<Change> changes_ ABSL_GUARDED_BY(mu_);
};

class FaultyStorage::FaultyFile final : public File {
 public:
  FaultyFile(FaultyStorage* storage, std::unique_ptr<File> base, std::shared_ptr<Node> node,
             std::string path, std::uint64_t boot)
      : storage_(storage),
        base_(std::move(base)),
        node_(std::move(node)),
        path_(std::move(path)),
        boot_(boot) {}

  absl::StatusOr<std::size_t> ReadAt(std::uint64_t offset, MutableByteView out) const override {
    absl::MutexLock lock(&storage_->mu_);
    ECHOFS_RETURN_IF_ERROR(Admit(kRead));
    return base_->ReadAt(offset, out);
  }
  absl::Status WriteAt(std::uint64_t offset, ByteView bytes) override {
    absl::MutexLock lock(&storage_->mu_);
    if (absl::Status status = Admit(kWrite); !status.ok()) {
      if (boot_ == storage_->boots_) (void)base_->WriteAt(offset, bytes.first(bytes.size() / 2));
      return status;
    }
    return base_->WriteAt(offset, bytes);
  }
  absl::Status Truncate(std::uint64_t size) override {
    absl::MutexLock lock(&storage_->mu_);
    ECHOFS_RETURN_IF_ERROR(Admit(kTruncate));
    return base_->Truncate(size);
  }
  absl::Status Sync() override {
    absl::MutexLock lock(&storage_->mu_);
    ECHOFS_RETURN_IF_ERROR(Admit(kSync));
    ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t size, base_->Size());
    node_->synced.resize(size);
    return base_->ReadAt(0, node_->synced).status();
  }
  absl::StatusOr<std::uint64_t> Size() const override { return base_->Size(); }
  int Descriptor() const override { return base_->Descriptor(); }

 private:
  absl::Status Admit(Kind kind) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(storage_->mu_) {
    if (boot_ != storage_->boots_)
      return StatusFromErrno(EIO, "opened before the power loss: " + path_);
    return storage_->Admit(kind, path_);
  }

  FaultyStorage* const storage_;
  const std::unique_ptr<File> base_;
  const std::shared_ptr<Node> node_;
  const std::string path_;
  const std::uint64_t boot_;
};

inline absl::Status FaultyStorage::Admit(Kind kind, const std::string& path) {
  if ((fail_.kinds & kind) == 0) return absl::OkStatus();
  ++counted_;
  if (fail_.k == 0 || counted_ < fail_.k) return absl::OkStatus();
  if (counted_ > fail_.k && !fail_.forever) return absl::OkStatus();
  ++failed_;
  return StatusFromErrno(fail_.error, "made to fail: " + path);
}

inline FaultyStorage::Bytes FaultyStorage::ReadWhole(const std::string& path) const {
  OpenOptions options;
  options.read_only = true;
  const auto file = base_->Open(path, options);
  ECHOFS_CHECK(file.ok());
  Bytes content(*(*file)->Size());
  ECHOFS_CHECK((*file)->ReadAt(0, content).ok());
  return content;
}

inline void FaultyStorage::WriteWhole(const std::string& path, const Bytes& content) const {
  OpenOptions options;
  options.create = true;
  options.exclusive = true;
  const auto file = base_->Open(path, options);
  ECHOFS_CHECK(file.ok());
  ECHOFS_CHECK((*file)->WriteAt(0, content).ok());
}

inline absl::StatusOr<std::unique_ptr<File>> FaultyStorage::Open(const std::string& path,
                                                                 const OpenOptions& options) {
  absl::MutexLock lock(&mu_);
  ECHOFS_RETURN_IF_ERROR(Admit(options.read_only ? kRead : kOpen, path));
  ECHOFS_ASSIGN_OR_RETURN(const bool existed, base_->Exists(path));
  if (existed && live_.count(path) == 0) {
    live_[path] = durable_[path] = std::make_shared<Node>(Node{ReadWhole(path)});
  }
  ECHOFS_ASSIGN_OR_RETURN(std::unique_ptr<File> base, base_->Open(path, options));
  if (!existed) {
    live_[path] = std::make_shared<Node>();
    changes_.push_back({"", path, live_[path]});
  }
  return std::make_unique<FaultyFile>(this, std::move(base), live_[path], path, boots_);
}

inline absl::Status FaultyStorage::Remove(const std::string& path) {
  absl::MutexLock lock(&mu_);
  ECHOFS_RETURN_IF_ERROR(Admit(kRemove, path));
  ECHOFS_RETURN_IF_ERROR(base_->Remove(path));
  changes_.push_back({path, "", nullptr});
  Make(changes_.back(), &live_);
  return absl::OkStatus();
}

inline absl::Status FaultyStorage::Rename(const std::string& from, const std::string& to) {
  absl::MutexLock lock(&mu_);
  ECHOFS_RETURN_IF_ERROR(Admit(kRename, from));
  ECHOFS_RETURN_IF_ERROR(base_->Rename(from, to));
  ECHOFS_CHECK(live_.count(from) != 0);
  changes_.push_back({from, to, live_[from]});
  Make(changes_.back(), &live_);
  return absl::OkStatus();
}

inline absl::Status FaultyStorage::SyncDirectory(const std::string& path) {
  absl::MutexLock lock(&mu_);
  ECHOFS_RETURN_IF_ERROR(Admit(kSyncDirectory, path));
  std::vector<Change> others;
  for (Change& change : changes_) {
    if (DirectoryOf(change.from.empty() ? change.to : change.from) == path) {
      Make(change, &durable_);
    } else {
      others.push_back(std::move(change));
    }
  }
  changes_ = std::move(others);
  return absl::OkStatus();
}

inline void FaultyStorage::PowerLoss(std::optional<std::uint64_t> seed) {
  constexpr std::size_t kSector = 512;
  absl::MutexLock lock(&mu_);
  std::mt19937_64 random(seed.value_or(0));
  const auto lucky = [&] { return seed.has_value() && random() % 2 == 0; };
  for (const Change& change : changes_) {
    if (lucky()) Make(change, &durable_);
  }
  for (const auto& [path, node] : live_) {
    const Bytes live = ReadWhole(path);
    Bytes& synced = node->synced;
    if (lucky()) synced.resize(live.size());
    for (std::size_t at = 0; at < std::min(live.size(), synced.size()); at += kSector) {
      if (!lucky()) continue;
      const std::size_t end = std::min({at + kSector, live.size(), synced.size()});
      std::copy(live.begin() + static_cast<std::ptrdiff_t>(at),
                live.begin() + static_cast<std::ptrdiff_t>(end),
                synced.begin() + static_cast<std::ptrdiff_t>(at));
    }
    ECHOFS_CHECK(base_->Remove(path).ok());
  }
  live_ = durable_;
  for (const auto& [path, node] : live_) WriteWhole(path, node->synced);
  changes_.clear();
  fail_ = {};
  ++boots_;
}

}  // namespace echofs
