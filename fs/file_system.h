// The mount's operations without the kernel's side of them: names, attributes and data of the files below
// the data directory, with what belongs to a database brought to its capture (primary) or kept from being
// changed (replica). The FUSE session in mount.cc calls one function for one request.
//
// On a primary, sizes of files change only by what applications do, which the kernel serialises per inode, so a
// SETATTR's reply never carries a stale size. On a replica the daemon changes them, so SETATTR is refused
// there for files of a database (design section 1, Sizes).
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "fs/control_files.h"
#include "fs/database.h"
#include "fs/earlier_mount.h"
#include "fs/file_tree.h"
#include "replication/storage.h"

namespace echofs {
class CommitAcks;
}  // namespace echofs

namespace echofs::fs {

class DatabaseSet;

// Who asks, for the owner of new files.
struct Caller {
  uid_t uid = 0;
  gid_t gid = 0;
};

struct Entry {
  std::shared_ptr<Node> node;  // with one lookup counted
  struct stat attributes;
};

// A change of attributes; what is not set stays.
struct AttributeChange {
  std::optional<std::uint64_t> size;
  std::optional<mode_t> mode;
  std::optional<uid_t> uid;
  std::optional<gid_t> gid;
  std::optional<timespec> access_time;
  std::optional<timespec> modification_time;
};

struct DirectoryEntry {
  std::string name;
  std::uint64_t inode;
  mode_t type;         // S_IFMT bits
  std::uint64_t next;  // offset that goes on after this entry
};

// Thread-safe. Errors carry an errno (errno_status.h).
class FileSystem {
 public:
  // `root`: directory of the backing files. Nothing is owned.
  FileSystem(std::string root, DatabaseSet* databases, Storage* storage, ControlSource control);

  FileTree& tree() { return tree_; }
  // Before requests are served: the kernel's side, and where the files are mounted (absolute).
  void SetKernel(PageCache* cache, std::string mount_point);

  // ---- Names (file_system_names.cc) ----
  absl::StatusOr<Entry> Lookup(InodeNumber parent, std::string_view name);
  absl::StatusOr<Entry> Create(InodeNumber parent, std::string_view name, mode_t mode, int flags,
                               const Caller& caller, bool own);
  absl::StatusOr<Entry> MakeDirectory(InodeNumber parent, std::string_view name, mode_t mode,
                                      const Caller& caller);
  absl::StatusOr<Entry> MakeSymlink(InodeNumber parent, std::string_view name,
                                    const std::string& target, const Caller& caller);
  absl::StatusOr<std::string> ReadSymlink(InodeNumber number);
  absl::Status Unlink(InodeNumber parent, std::string_view name);
  // Before a file is opened or created by a thread of an application: an error when it is a -wal, -shm or -journal and
  // the process has its database open from an earlier mount (earlier_mount.h).
  absl::Status CheckOpener(InodeNumber number, pid_t thread);
  absl::Status CheckCreator(InodeNumber parent, std::string_view name, pid_t thread);
  absl::Status RemoveDirectory(InodeNumber parent, std::string_view name);
  absl::Status Rename(InodeNumber parent, std::string_view name, InodeNumber new_parent,
                      std::string_view new_name, unsigned flags);
  // Calls `emit` for each entry from `offset` on until it returns false.
  absl::Status ReadDirectory(InodeNumber number, std::uint64_t offset,
                             const std::function<bool(const DirectoryEntry&)>& emit);

  // ---- Attributes and data (file_system_data.cc, file_system_wal_index.cc) ----
  absl::StatusOr<struct stat> GetAttributes(InodeNumber number);
  absl::StatusOr<struct stat> SetAttributes(InodeNumber number, const AttributeChange& change);
  // `own`: the descriptor is one of the daemon's own, for locks: it counts for nothing.
  absl::Status Open(InodeNumber number, int flags, bool own);
  absl::Status Release(InodeNumber number, int flags, bool own);
  // The text of a control file, or nothing for others.
  std::optional<std::string> ControlText(InodeNumber number);
  absl::StatusOr<std::size_t> Read(InodeNumber number, std::uint64_t offset, MutableByteView out);
  absl::Status Write(InodeNumber number, std::uint64_t offset, ByteView bytes);
  // Returns the entry that is to be acknowledged before the application is answered (D1); zero when none is.
  absl::StatusOr<LogIndex> Sync(InodeNumber number);
  absl::Status Allocate(InodeNumber number, std::uint64_t end);
  absl::Status SyncDirectory(InodeNumber number);

  // True when the operation could wait for the log or the disk: to be run by the worker pool.
  bool WriteMayWait(InodeNumber number, std::uint64_t offset, std::uint64_t size);
  bool UnlinkMayWait(InodeNumber parent, std::string_view name);
  bool TruncateMayWait(InodeNumber number);
  // True when a sync of this file has been put off (DatabaseCapture::PutOffSync): Sync is not to be called.
  bool PutOffSync(InodeNumber number);
  // Of a database.
  bool IsJournal(InodeNumber number);
  // True when closing a descriptor matters to the file's database (-wal, -shm; design C3).
  bool WantsFlush(InodeNumber number);
  // An application closes a descriptor: whether its database has a commit that the wal-index lacks, and what
  // is to be done then, on a worker. `thread` is the pid of the request.
  bool FlushNeedsRepair(InodeNumber number);
  // The same after an error that an application is about to be told of, for a file of a WAL.
  bool ErrorNeedsRepair(InodeNumber number);
  void RepairIndex(InodeNumber number, pid_t thread);

  // ---- Fewer requests for a frame of a WAL (file_system_wal_cache.cc) ----
  // Whether a write is the first of two parts in which the kernel brings a frame's page, on a primary.
  bool IsFirstPartOfFrame(InodeNumber number, std::uint64_t offset, std::uint64_t size);
  // Before such a write is answered, `offset` being its end: makes the kernel know what follows. For workers.
  void StoreOldWal(InodeNumber number, std::uint64_t offset);

  // ---- Commits that other nodes acknowledge (file_system_acks.cc, design D1) ----
  // Null when commits do not wait.
  CommitAcks* acks() const;
  // Before an operation that may end a transaction: puts that into the log, and returns the entry that is to be
  // acknowledged before the operation is done; zero when none is. May wait: for workers.
  absl::StatusOr<LogIndex> LogUnlink(InodeNumber parent, std::string_view name);
  absl::StatusOr<LogIndex> LogTruncate(InodeNumber number, std::uint64_t size);
  absl::StatusOr<LogIndex> LogWrite(InodeNumber number, std::uint64_t offset, ByteView bytes);
  // After a write to a WAL when all commits are acknowledged: what is to be, before the application is answered.
  bool WriteIsAcknowledged(InodeNumber number);
  absl::StatusOr<LogIndex> WrittenCommits(InodeNumber number);
  // The application is told that its commit failed, which may not be so.
  void SetInDoubt(InodeNumber number);

  const std::string& root() const { return root_; }

 private:
  absl::StatusOr<std::shared_ptr<Node>> Find(InodeNumber number);
  std::string BackingPath(const std::string& path) const;
  // Null when the node is not this file of a database of a primary.
  std::shared_ptr<DatabaseCapture> CaptureOfNode(InodeNumber number, sqlite::FileRole role);
  absl::StatusOr<struct stat> StatNode(const Node& node);
  ControlFile ControlFileOf(const Node& parent, std::string_view name);
  struct stat ControlAttributes(const Node& node);
  std::string TextOf(const Node& node);
  // The database that the file at `path` belongs to by its name, or null.
  absl::StatusOr<std::shared_ptr<Database>> DatabaseForPath(const std::string& path,
                                                            sqlite::FileRole role);
  // The same for a node, remembered there; its file is made known to the capture. An error means that it is
  // not known whether the file is part of a database: nothing may be done to it.
  absl::StatusOr<std::shared_ptr<Database>> AttachDatabase(Node& node, const NodeView& view);
  // The rest of Open, when the open is counted.
  absl::Status OpenCounted(Node& node, int flags);
  // The node's view with its backing file, which is opened when it is not.
  absl::StatusOr<NodeView> ViewWithFile(Node& node);
  absl::StatusOr<std::shared_ptr<File>> OpenBacking(Node& node, const std::string& path);
  absl::Status CheckCreate(const std::string& path, std::string_view name);
  absl::Status CheckConnection(const std::string& path, pid_t thread);
  // Whether nobody has the database of this name open. May wait: for workers.
  bool IsAbandoned(const Node& parent, std::string_view database);
  absl::Status CheckMovable(const std::string& path, std::string_view name);
  void SetOwner(int descriptor, const std::string& path, const Caller& caller,
                const struct stat& directory);

  const std::string root_;
  DatabaseSet* const databases_;
  Storage* const storage_;
  const ControlSource control_;
  PageCache* cache_ = nullptr;
  std::string mount_point_;
  FileTree tree_;
  EarlierMount earlier_mount_;
  absl::Mutex opening_;  // one opener of backing files at a time
};

}  // namespace echofs::fs
