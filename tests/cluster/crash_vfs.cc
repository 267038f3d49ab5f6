#include "crash_vfs.h"

#include <signal.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

namespace {

sqlite3_vfs* real_vfs = nullptr;
CrashPoint* crash_point = nullptr;

// "-wal", "-journal", "super-journal" or "database".
const char* RoleOf(const char* name) {
  if (name == nullptr) return "temporary";
  if (std::strstr(name, "-mj") != nullptr) return "super-journal";
  const char* const dash = std::strrchr(name, '-');
  return dash == nullptr || std::strchr(dash, '/') != nullptr ? "database" : dash;
}

// After an operation that has been done.
void Step(const char* operation, const char* role) {
  if (crash_point->steps_left.load() < 0 || crash_point->steps_left.fetch_sub(1) != 1) return;
  std::snprintf(crash_point->last, sizeof(crash_point->last), "%s %s", operation, role);
  kill(getpid(), SIGKILL);
}

struct CrashFile {
  sqlite3_file base;
  const char* role;
  sqlite3_file* real() { return reinterpret_cast<sqlite3_file*>(this + 1); }
};

CrashFile* Of(sqlite3_file* file) { return reinterpret_cast<CrashFile*>(file); }
sqlite3_file* Real(sqlite3_file* file) { return Of(file)->real(); }

// What fails, such as a lock that others hold, is tried again as often as it may be: it is no step.
int Done(int rc, const char* operation, sqlite3_file* file) {
  if (rc == SQLITE_OK) Step(operation, Of(file)->role);
  return rc;
}

const sqlite3_io_methods& Methods() {
  static const sqlite3_io_methods methods = [] {
    sqlite3_io_methods m{};
    m.iVersion = 2;
    m.xClose = [](sqlite3_file* f) { return Real(f)->pMethods->xClose(Real(f)); };
    m.xRead = [](sqlite3_file* f, void* out, int n, sqlite3_int64 offset) {
      return Real(f)->pMethods->xRead(Real(f), out, n, offset);
    };
    m.xWrite = [](sqlite3_file* f, const void* data, int n, sqlite3_int64 offset) {
      return Done(Real(f)->pMethods->xWrite(Real(f), data, n, offset), "write", f);
    };
    m.xTruncate = [](sqlite3_file* f, sqlite3_int64 size) {
      return Done(Real(f)->pMethods->xTruncate(Real(f), size), "truncate", f);
    };
    m.xSync = [](sqlite3_file* f, int flags) {
      return Done(Real(f)->pMethods->xSync(Real(f), flags), "sync", f);
    };
    m.xFileSize = [](sqlite3_file* f, sqlite3_int64* size) {
      return Real(f)->pMethods->xFileSize(Real(f), size);
    };
    m.xLock = [](sqlite3_file* f, int level) {
      return Done(Real(f)->pMethods->xLock(Real(f), level), "lock", f);
    };
    m.xUnlock = [](sqlite3_file* f, int level) {
      return Done(Real(f)->pMethods->xUnlock(Real(f), level), "unlock", f);
    };
    m.xCheckReservedLock = [](sqlite3_file* f, int* out) {
      return Real(f)->pMethods->xCheckReservedLock(Real(f), out);
    };
    m.xFileControl = [](sqlite3_file* f, int op, void* argument) {
      return Real(f)->pMethods->xFileControl(Real(f), op, argument);
    };
    m.xSectorSize = [](sqlite3_file* f) { return Real(f)->pMethods->xSectorSize(Real(f)); };
    m.xDeviceCharacteristics = [](sqlite3_file* f) {
      return Real(f)->pMethods->xDeviceCharacteristics(Real(f));
    };
    m.xShmMap = [](sqlite3_file* f, int page, int size, int extend, void volatile** out) {
      return Real(f)->pMethods->xShmMap(Real(f), page, size, extend, out);
    };
    m.xShmLock = [](sqlite3_file* f, int offset, int n, int flags) {
      return Done(Real(f)->pMethods->xShmLock(Real(f), offset, n, flags), "lock", f);
    };
    m.xShmBarrier = [](sqlite3_file* f) {
      Real(f)->pMethods->xShmBarrier(Real(f));
      Step("barrier", "-shm");  // between the two copies of the wal-index's header
    };
    m.xShmUnmap = [](sqlite3_file* f, int remove) {
      return Real(f)->pMethods->xShmUnmap(Real(f), remove);
    };
    return m;
  }();
  return methods;
}

int Open(sqlite3_vfs*, sqlite3_filename name, sqlite3_file* file, int flags, int* out_flags) {
  CrashFile* const f = Of(file);
  f->base.pMethods = nullptr;
  f->role = RoleOf(name);
  const int rc = real_vfs->xOpen(real_vfs, name, f->real(), flags, out_flags);
  if (rc == SQLITE_OK) f->base.pMethods = &Methods();
  return rc;
}

int Delete(sqlite3_vfs*, const char* name, int sync_directory) {
  const int rc = real_vfs->xDelete(real_vfs, name, sync_directory);
  Step("delete", RoleOf(name));
  return rc;
}

}  // namespace

void RegisterCrashVfs(CrashPoint* point) {
  static sqlite3_vfs vfs;
  crash_point = point;
  real_vfs = sqlite3_vfs_find(nullptr);
  vfs = *real_vfs;
  vfs.zName = "crash";
  vfs.pNext = nullptr;
  vfs.szOsFile = static_cast<int>(sizeof(CrashFile)) + real_vfs->szOsFile;
  vfs.xOpen = Open;
  vfs.xDelete = Delete;
  vfs.xAccess = [](sqlite3_vfs*, const char* name, int flags, int* out) {
    return real_vfs->xAccess(real_vfs, name, flags, out);
  };
  vfs.xFullPathname = [](sqlite3_vfs*, const char* name, int n, char* out) {
    return real_vfs->xFullPathname(real_vfs, name, n, out);
  };
  if (sqlite3_vfs_register(&vfs, 1) != SQLITE_OK) abort();
}
