// SQLite connections from before: those whose database file was opened in an earlier mount, which has ended.
//
// A file that an application has open lives on when its mount is gone: its locks are the kernel's, what the kernel has
// cached is read still. SQLite opens -wal, -shm and -journal by name, and when it first needs them. A connection that was
// open before the node was restarted may so come to the files of the mount that is there now, while its database file, its
// locks on it, and perhaps its -wal are the old ones. It would fill the -shm of everybody with what its own -wal says, or
// take the journal of a transaction that is going on for that of a writer who died.
//
// So while a process has a file of a database open from an earlier mount, it may not open these files of that database.
// SQLite says "unable to open database file", and the application closes the connection. Connections that the process
// has opened since cannot be told from it, and have to wait for that.
//
// How it is told. /proc/PID/fd has a link for each descriptor. A mount that was removed has no place any more, and the
// link has the path from its own root, "/app.db", where that of a file in a mount is "/mnt/app.db". A file in the root
// directory of the machine has such a path as well; its mount is in /proc/PID/mountinfo.
//
// What is not seen: processes of another pid namespace, or whose /proc this process may not read, and files that one
// process gives to another after that one was looked at.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"

namespace echofs::fs {

// Thread-safe.
class EarlierMount {
 public:
  // Whether the process of `thread`, the pid of a request, has the database's file open from an earlier mount;
  // `database` is its path below the mount's root. False when that cannot be told. No file of the mount is touched. A
  // thread that was found to have none is not looked at again: no more can come.
  bool HasOpen(pid_t thread, const std::string& database) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  absl::Mutex mutex_;
  // When a thread without such a file was started (clock ticks after the boot), for its number is given again.
  absl::flat_hash_map<std::pair<pid_t, std::string>, std::string> without_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace echofs::fs
