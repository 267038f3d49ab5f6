// The files of the mount as the kernel knows them: inode numbers, names, open backing files.
//
// Inode numbers are counted up and never reused while the mount lives (design section 12), and begin somewhere else in
// each mount: by the number SQLite tells whether its database file is the one that the name has now, before it makes a
// journal, and that of an earlier mount is not. I/O goes by inode, so that a file that was removed stays usable to those who have it open.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "fs/page_cache.h"
#include "fs/sqlite_format.h"
#include "replication/storage.h"

namespace echofs::fs {

class Database;

enum class ControlFile : std::uint8_t { kNone, kPrimary, kPosition, kLag };

// One file, directory or link.
struct Node {
  const InodeNumber number;
  const ControlFile control;
  const std::uint64_t backing_inode;  // of the file system below; 0 for control files

  // Guarded by the tree's lock.
  sqlite::FileRole role;         // as the name says
  std::shared_ptr<Node> parent;  // null for the root and for removed nodes
  std::string name;              // last component
  bool removed = false;
  std::uint64_t lookups = 0;  // references that the kernel holds
  int opens = 0;              // open descriptors of applications
  int writers = 0;            // those of them that may write
  std::shared_ptr<File> file;
  std::shared_ptr<Database> database;
  std::shared_ptr<Database> former_database;  // of a removed node: what it belonged to
};

// What an operation on a node needs to know, taken in one step.
struct NodeView {
  sqlite::FileRole role;
  bool removed;
  std::shared_ptr<File> file;          // null while nobody has it open
  std::shared_ptr<Database> database;  // null for files that belong to none, and for removed ones
  std::shared_ptr<Database> former_database;  // of removed ones
};

// Thread-safe.
class FileTree {
 public:
  FileTree();

  std::shared_ptr<Node> root() const { return root_; }
  // Null when the kernel could not know the number.
  std::shared_ptr<Node> Find(InodeNumber number) ABSL_LOCKS_EXCLUDED(mutex_);
  // The node of a name that exists, made when it is not known, with one lookup more. A name that has come
  // to mean another file below gets a new node.
  std::shared_ptr<Node> Lookup(const std::shared_ptr<Node>& parent, std::string_view name,
                               ControlFile control, std::uint64_t backing_inode)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // The kernel gives back `count` lookups.
  void Forget(InodeNumber number, std::uint64_t count) ABSL_LOCKS_EXCLUDED(mutex_);
  // The name is gone; the node lives on while the kernel knows it.
  void Remove(const std::shared_ptr<Node>& parent, std::string_view name)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void Rename(const std::shared_ptr<Node>& from, std::string_view from_name,
              const std::shared_ptr<Node>& to, std::string_view to_name)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Path below the root, "" for the root itself; of a removed node, its last name alone.
  std::string Path(const Node& node) ABSL_LOCKS_EXCLUDED(mutex_);
  std::string ChildPath(const Node& directory, std::string_view name) ABSL_LOCKS_EXCLUDED(mutex_);

  NodeView View(const Node& node) ABSL_LOCKS_EXCLUDED(mutex_);
  void SetFile(Node& node, std::shared_ptr<File> file) ABSL_LOCKS_EXCLUDED(mutex_);
  // Closes the backing file unless somebody has opened the node by now.
  void DropUnusedFile(Node& node) ABSL_LOCKS_EXCLUDED(mutex_);
  void SetDatabase(Node& node, std::shared_ptr<Database> database) ABSL_LOCKS_EXCLUDED(mutex_);
  std::shared_ptr<Node> Parent(const Node& node) ABSL_LOCKS_EXCLUDED(mutex_);
  // Descriptors of applications on a name; 0 when it is not known.
  int Opens(const Node& parent, std::string_view name) ABSL_LOCKS_EXCLUDED(mutex_);
  void CountOpen(Node& node, bool writer) ABSL_LOCKS_EXCLUDED(mutex_);
  struct Closed {
    bool last;
    bool last_writer;
  };
  Closed CountClose(Node& node, bool writer) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct NameKey {
    InodeNumber parent;
    std::string name;
    friend bool operator==(const NameKey&, const NameKey&) = default;
  };
  struct NameKeyHash {
    std::size_t operator()(const NameKey& key) const {
      return std::hash<std::string>()(key.name) ^ (key.parent * 0x9e3779b97f4a7c15ull);
    }
  };
  static void Detach(Node& node);
  std::string PathLocked(const Node& node) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Mutex mutex_;
  std::shared_ptr<Node> root_;
  InodeNumber next_number_ ABSL_GUARDED_BY(mutex_);
  std::unordered_map<InodeNumber, std::shared_ptr<Node>> nodes_ ABSL_GUARDED_BY(mutex_);
  std::unordered_map<NameKey, std::shared_ptr<Node>, NameKeyHash> names_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace echofs::fs
