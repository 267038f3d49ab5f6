#include "fs/file_tree.h"

#include <algorithm>
#include <random>
#include <utility>

namespace echofs::fs {
namespace {

// Random, and such that all numbers have 32 bits: programs without large file support fail at others.
InodeNumber FirstNumber() {
  std::random_device random;
  return std::uniform_int_distribution<InodeNumber>(2, InodeNumber{1} << 31)(random);
}

}  // namespace

FileTree::FileTree() : next_number_(FirstNumber()) {
  root_ = std::make_shared<Node>(Node{1, ControlFile::kNone, 0, sqlite::FileRole::kMain, nullptr,
                                      "", false, 1, 0, 0, nullptr, nullptr, nullptr});
  nodes_[1] = root_;
}

std::shared_ptr<Node> FileTree::Find(InodeNumber number) {
  absl::MutexLock lock(&mutex_);
  const auto it = nodes_.find(number);
  return it == nodes_.end() ? nullptr : it->second;
}

std::shared_ptr<Node> FileTree::Lookup(const std::shared_ptr<Node>& parent, std::string_view name,
                                       ControlFile control, std::uint64_t backing_inode) {
  absl::MutexLock lock(&mutex_);
  std::shared_ptr<Node>& node = names_[{parent->number, std::string(name)}];
  if (!node || node->control != control || node->backing_inode != backing_inode) {
    if (node) Detach(*node);
    node = std::make_shared<Node>(
        Node{next_number_++, control, backing_inode, sqlite::ClassifyFileName(name).role, parent,
             std::string(name), false, 0, 0, 0, nullptr, nullptr, nullptr});
    nodes_[node->number] = node;
  }
  ++node->lookups;
  return node;
}

void FileTree::Detach(Node& node) {
  node.removed = true;
  node.parent.reset();
  node.former_database = std::move(node.database);
}

void FileTree::Forget(InodeNumber number, std::uint64_t count) {
  absl::MutexLock lock(&mutex_);
  const auto it = nodes_.find(number);
  if (it == nodes_.end() || it->second == root_) return;
  const std::shared_ptr<Node> node = it->second;
  node->lookups -= std::min(count, node->lookups);
  if (node->lookups != 0) return;
  if (!node->removed) names_.erase({node->parent->number, node->name});
  nodes_.erase(it);
}

void FileTree::Remove(const std::shared_ptr<Node>& parent, std::string_view name) {
  absl::MutexLock lock(&mutex_);
  const auto it = names_.find({parent->number, std::string(name)});
  if (it == names_.end()) return;
  Detach(*it->second);
  names_.erase(it);
}

void FileTree::Rename(const std::shared_ptr<Node>& from, std::string_view from_name,
                      const std::shared_ptr<Node>& to, std::string_view to_name) {
  Remove(to, to_name);
  absl::MutexLock lock(&mutex_);
  const auto it = names_.find({from->number, std::string(from_name)});
  if (it == names_.end()) return;
  const std::shared_ptr<Node> node = it->second;
  names_.erase(it);
  node->parent = to;
  node->name = std::string(to_name);
  node->role = sqlite::ClassifyFileName(to_name).role;
  names_[{to->number, node->name}] = node;
}

std::string FileTree::PathLocked(const Node& node) {
  std::string path = node.name;
  for (const Node* up = node.parent.get(); up != nullptr && up != root_.get();
       up = up->parent.get()) {
    path.insert(0, up->name + "/");
  }
  return path;
}

std::string FileTree::Path(const Node& node) {
  absl::MutexLock lock(&mutex_);
  return PathLocked(node);
}

std::string FileTree::ChildPath(const Node& directory, std::string_view name) {
  absl::MutexLock lock(&mutex_);
  std::string path = PathLocked(directory);
  if (!path.empty()) path += "/";
  path += name;
  return path;
}

NodeView FileTree::View(const Node& node) {
  absl::MutexLock lock(&mutex_);
  return {node.role, node.removed, node.file, node.database, node.former_database};
}

void FileTree::SetFile(Node& node, std::shared_ptr<File> file) {
  absl::MutexLock lock(&mutex_);
  node.file = std::move(file);
}

void FileTree::DropUnusedFile(Node& node) {
  std::shared_ptr<File> file;
  {
    absl::MutexLock lock(&mutex_);
    if (node.opens == 0) file = std::move(node.file);
  }  // closed without the lock
}

void FileTree::SetDatabase(Node& node, std::shared_ptr<Database> database) {
  absl::MutexLock lock(&mutex_);
  node.database = std::move(database);
}

std::shared_ptr<Node> FileTree::Parent(const Node& node) {
  absl::MutexLock lock(&mutex_);
  return node.parent;
}

int FileTree::Opens(const Node& parent, std::string_view name) {
  absl::MutexLock lock(&mutex_);
  const auto it = names_.find({parent.number, std::string(name)});
  return it == names_.end() ? 0 : it->second->opens;
}

void FileTree::CountOpen(Node& node, bool writer) {
  absl::MutexLock lock(&mutex_);
  ++node.opens;
  if (writer) ++node.writers;
}

FileTree::Closed FileTree::CountClose(Node& node, bool writer) {
  absl::MutexLock lock(&mutex_);
  --node.opens;
  if (writer) --node.writers;
  return {node.opens == 0, writer && node.writers == 0};
}

}  // namespace echofs::fs
