#include "tests/simulation/sim_storage.h"

#include <errno.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "replication/status_macros.h"

namespace echofs::sim {
namespace {

std::string DirectoryOf(const std::string& path) { return path.substr(0, path.rfind('/')); }

}  // namespace

class SimStorage::OpenFile final : public File {
 public:
  OpenFile(SimStorage* storage, std::string path, std::shared_ptr<Inode> inode)
      : storage_(storage), path_(std::move(path)), inode_(std::move(inode)) {}

  absl::StatusOr<std::size_t> ReadAt(std::uint64_t offset, MutableByteView out) const override {
    if (!storage_->powered_) return StatusFromErrno(EIO, path_);
    const std::vector<std::uint8_t>& content = inode_->content;
    if (offset >= content.size() || out.empty()) return 0;
    const std::size_t n = std::min<std::uint64_t>(out.size(), content.size() - offset);
    std::memcpy(out.data(), content.data() + offset, n);
    return n;
  }

  absl::Status WriteAt(std::uint64_t offset, ByteView bytes) override {
    ECHOFS_RETURN_IF_ERROR(storage_->Operate(path_));
    if (bytes.empty()) return absl::OkStatus();
    if (storage_->full_ && offset + bytes.size() > inode_->content.size()) {
      return StatusFromErrno(ENOSPC, path_);
    }
    Make({false, offset, {bytes.begin(), bytes.end()}});
    return absl::OkStatus();
  }

  absl::Status Truncate(std::uint64_t size) override {
    ECHOFS_RETURN_IF_ERROR(storage_->Operate(path_));
    if (size != inode_->content.size()) Make({true, size, {}});
    return absl::OkStatus();
  }

  absl::Status Sync() override {
    ECHOFS_RETURN_IF_ERROR(storage_->Operate(path_));
    for (const auto& change : inode_->changes) Apply(change, &inode_->durable);
    inode_->changes.clear();
    return absl::OkStatus();
  }

  absl::StatusOr<std::uint64_t> Size() const override { return inode_->content.size(); }
  int Descriptor() const override { return -1; }

 private:
  void Make(Change change) {
    Apply(change, &inode_->content);
    inode_->changes.push_back(std::move(change));
  }

  SimStorage* const storage_;
  const std::string path_;
  const std::shared_ptr<Inode> inode_;
};

void SimStorage::Apply(const Change& change, std::vector<std::uint8_t>* content) {
  if (change.truncation) {
    content->resize(change.offset);
    return;
  }
  if (content->size() < change.offset + change.bytes.size()) {
    content->resize(change.offset + change.bytes.size());
  }
  std::memcpy(content->data() + change.offset, change.bytes.data(), change.bytes.size());
}

void SimStorage::Apply(const NameChange& change, Names* names) {
  if (!change.removed.empty()) names->erase(change.removed);
  if (!change.added.empty()) (*names)[change.added] = change.inode;
}

absl::Status SimStorage::Operate(const std::string& path) {
  if (powered_ && operations_left_ > 0 && --operations_left_ == 0) powered_ = false;
  return powered_ ? absl::OkStatus() : StatusFromErrno(EIO, path);
}

void SimStorage::Record(const std::string& path, NameChange change) {
  Apply(change, &names_);
  name_changes_[DirectoryOf(path)].push_back(std::move(change));
}

absl::StatusOr<std::unique_ptr<File>> SimStorage::Open(const std::string& path,
                                                       const OpenOptions& options) {
  if (!powered_) return StatusFromErrno(EIO, path);
  auto found = names_.find(path);
  if (found == names_.end()) {
    if (!options.create) return StatusFromErrno(ENOENT, path);
    ECHOFS_RETURN_IF_ERROR(Operate(path));
    Record(path, {"", path, std::make_shared<Inode>()});
    found = names_.find(path);
  } else if (options.create && options.exclusive) {
    return StatusFromErrno(EEXIST, path);
  }
  auto file = std::make_unique<OpenFile>(this, path, found->second);
  if (options.truncate) ECHOFS_RETURN_IF_ERROR(file->Truncate(0));
  return file;
}

absl::Status SimStorage::Remove(const std::string& path) {
  ECHOFS_RETURN_IF_ERROR(Operate(path));
  if (names_.count(path) == 0) return StatusFromErrno(ENOENT, path);
  Record(path, {path, "", nullptr});
  return absl::OkStatus();
}

absl::Status SimStorage::Rename(const std::string& from, const std::string& to) {
  ECHOFS_RETURN_IF_ERROR(Operate(from));
  ECHOFS_CHECK(DirectoryOf(from) == DirectoryOf(to));
  const auto found = names_.find(from);
  if (found == names_.end()) return StatusFromErrno(ENOENT, from);
  Record(from, {from, to, found->second});
  return absl::OkStatus();
}

absl::Status SimStorage::SyncDirectory(const std::string& path) {
  ECHOFS_RETURN_IF_ERROR(Operate(path));
  for (const NameChange& change : name_changes_[path]) Apply(change, &durable_names_);
  name_changes_.erase(path);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> SimStorage::List(const std::string& path) {
  if (!powered_) return StatusFromErrno(EIO, path);
  const std::string prefix = path + "/";
  std::vector<std::string> names;
  for (auto i = names_.lower_bound(prefix); i != names_.end() && i->first.starts_with(prefix);
       ++i) {
    const std::string name = i->first.substr(prefix.size());
    if (name.find('/') == std::string::npos) names.push_back(name);
  }
  return names;
}

absl::Status SimStorage::MakeDirectories(const std::string& path) {
  ECHOFS_RETURN_IF_ERROR(Operate(path));
  directories_.insert(path);
  return absl::OkStatus();
}

absl::StatusOr<bool> SimStorage::Exists(const std::string& path) {
  if (!powered_) return StatusFromErrno(EIO, path);
  return names_.count(path) > 0 || directories_.count(path) > 0;
}

absl::StatusOr<std::uint64_t> SimStorage::FreeBytes(const std::string& path) {
  if (!powered_) return StatusFromErrno(EIO, path);
  return full_ ? 0 : std::uint64_t{1} << 40;
}

void SimStorage::Revive() {
  powered_ = true;
  operations_left_ = 0;
}

void SimStorage::PowerLoss() {
  Revive();
  for (auto& [directory, changes] : name_changes_) {
    const std::size_t kept = random_->Chance(400) ? 0 : random_->Below(changes.size() + 1);
    for (std::size_t i = 0; i < kept; ++i) Apply(changes[i], &durable_names_);
  }
  name_changes_.clear();
  names_ = durable_names_;
  std::set<const Inode*> done;  // an inode has one name but between the halves of a rename
  for (auto& [path, inode] : names_) {
    if (done.insert(inode.get()).second) LosePending(inode.get());
  }
}

void SimStorage::LosePending(Inode* inode) {
  std::vector<Change> changes = std::exchange(inode->changes, {});
  std::size_t i = 0;
  if (!random_->Chance(400)) {
    const std::size_t kept = random_->Below(changes.size() + 1);
    for (; i < kept; ++i) Apply(changes[i], &inode->durable);
    for (; i < changes.size() && !changes[i].truncation; ++i) {
      if (!random_->Chance(300)) continue;
      Change& change = changes[i];
      if (random_->Chance(500)) change.bytes.resize(random_->Below(change.bytes.size()));
      if (!change.bytes.empty()) Apply(change, &inode->durable);
    }
  }
  inode->content = inode->durable;
}

}  // namespace echofs::sim
