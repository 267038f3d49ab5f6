// A SQLite VFS over the default one that kills its process with SIGKILL after a chosen operation.
#pragma once

#include <atomic>

// In memory that the killed process shares with another.
struct CrashPoint {
  std::atomic<int> steps_left{-1};  // operations until the end; negative: none is chosen
  char last[64] = "";               // the operation after which it ended, such as "write -wal"
};

// Makes the VFS the default of this process. `point` must live on. Counts writes, truncations, syncs, removals,
// and changes of locks and shared memory.
void RegisterCrashVfs(CrashPoint* point);
