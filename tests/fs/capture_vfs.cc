#include "tests/fs/capture_vfs.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "replication/status_macros.h"

namespace echofs::fs {

struct CaptureVfs::Impl {
  sqlite3_vfs vfs{};
  sqlite3_vfs* real = nullptr;
  std::string path;
  DatabaseCapture* capture = nullptr;
  Storage* storage = nullptr;
  CaptureVfs* owner = nullptr;
  std::uint64_t writes = 0;

  bool Allows(const char* operation, FileRole role) const {
    return !owner->allow || owner->allow(operation, role);
  }
};

namespace {

constexpr std::size_t kKernelPageSize = 4096;  // bytes

struct CaptureFile {
  sqlite3_file base;
  CaptureVfs::Impl* impl;
  FileRole role;
  sqlite3_file* real() { return reinterpret_cast<sqlite3_file*>(this + 1); }
};

CaptureFile* Of(sqlite3_file* file) { return reinterpret_cast<CaptureFile*>(file); }
sqlite3_file* Real(sqlite3_file* file) { return Of(file)->real(); }

int ResultOf(CaptureVfs::Impl& impl, FileRole role, const absl::Status& status, int failure) {
  if (status.ok()) return SQLITE_OK;
  if (impl.owner->failed) impl.owner->failed(role);
  // As os_unix.c, to which a full disk is an error of its own in a write only.
  if (failure != SQLITE_IOERR_WRITE) return failure;
  return absl::IsResourceExhausted(status) ? SQLITE_FULL : failure;
}

int Write(sqlite3_file* file, const void* data, int size, sqlite3_int64 offset) {
  CaptureFile& f = *Of(file);
  if (!f.impl->Allows("write", f.role)) return SQLITE_IOERR_WRITE;
  // Every other write in the pieces in which the kernel brings one when it has no copy of the pages: a piece that
  // begins within a page of the file ends with it.
  const bool whole = f.impl->writes++ % 2 == 0;
  auto at = static_cast<std::uint64_t>(offset);
  ByteView bytes(static_cast<const std::uint8_t*>(data), static_cast<std::size_t>(size));
  while (!bytes.empty()) {
    const std::size_t within = at % kKernelPageSize;
    const std::size_t piece =
        whole || within == 0 ? bytes.size() : std::min(bytes.size(), kKernelPageSize - within);
    const absl::Status written = f.impl->capture->Write(f.role, at, bytes.first(piece));
    if (!written.ok()) return ResultOf(*f.impl, f.role, written, SQLITE_IOERR_WRITE);
    at += piece;
    bytes = bytes.subspan(piece);
  }
  return SQLITE_OK;
}

int Truncate(sqlite3_file* file, sqlite3_int64 size) {
  CaptureFile& f = *Of(file);
  if (!f.impl->Allows("truncate", f.role)) return SQLITE_IOERR_TRUNCATE;
  return ResultOf(*f.impl, f.role,
                  f.impl->capture->Truncate(f.role, static_cast<std::uint64_t>(size)),
                  SQLITE_IOERR_TRUNCATE);
}

int Sync(sqlite3_file* file, int) {
  CaptureFile& f = *Of(file);
  if (!f.impl->Allows("sync", f.role)) return SQLITE_IOERR_FSYNC;
  if (f.impl->capture->PutOffSync(f.role)) return SQLITE_OK;
  return ResultOf(*f.impl, f.role, f.impl->capture->Sync(f.role).status(), SQLITE_IOERR_FSYNC);
}

const sqlite3_io_methods& Methods() {
  static const sqlite3_io_methods methods = [] {
    sqlite3_io_methods m{};
    m.iVersion = 2;
    m.xClose = [](sqlite3_file* f) { return Real(f)->pMethods->xClose(Real(f)); };
    m.xRead = [](sqlite3_file* f, void* out, int n, sqlite3_int64 offset) {
      return Real(f)->pMethods->xRead(Real(f), out, n, offset);
    };
    m.xWrite = Write;
    m.xTruncate = Truncate;
    m.xSync = Sync;
    m.xFileSize = [](sqlite3_file* f, sqlite3_int64* size) {
      return Real(f)->pMethods->xFileSize(Real(f), size);
    };
    m.xLock = [](sqlite3_file* f, int level) { return Real(f)->pMethods->xLock(Real(f), level); };
    m.xUnlock = [](sqlite3_file* f, int level) {
      return Real(f)->pMethods->xUnlock(Real(f), level);
    };
    m.xCheckReservedLock = [](sqlite3_file* f, int* out) {
      return Real(f)->pMethods->xCheckReservedLock(Real(f), out);
    };
    m.xFileControl = [](sqlite3_file* f, int op, void* argument) {
      if (op == SQLITE_FCNTL_SIZE_HINT || op == SQLITE_FCNTL_CHUNK_SIZE) return SQLITE_NOTFOUND;
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
      return Real(f)->pMethods->xShmLock(Real(f), offset, n, flags);
    };
    m.xShmBarrier = [](sqlite3_file* f) { Real(f)->pMethods->xShmBarrier(Real(f)); };
    m.xShmUnmap = [](sqlite3_file* f, int remove) {
      return Real(f)->pMethods->xShmUnmap(Real(f), remove);
    };
    return m;
  }();
  return methods;
}

CaptureVfs::Impl* ImplOf(sqlite3_vfs* vfs) { return static_cast<CaptureVfs::Impl*>(vfs->pAppData); }

bool RoleOf(const CaptureVfs::Impl& impl, const char* name, FileRole* role) {
  if (name == nullptr) return false;
  const sqlite::FileName classified = sqlite::ClassifyFileName(name);
  *role = classified.role;
  return classified.database == impl.path && classified.role != FileRole::kShm &&
         classified.role != FileRole::kSuperJournal;
}

int Open(sqlite3_vfs* vfs, sqlite3_filename name, sqlite3_file* file, int flags, int* out_flags) {
  CaptureVfs::Impl* const impl = ImplOf(vfs);
  CaptureFile* const f = Of(file);
  f->base.pMethods = nullptr;
  f->impl = impl;
  if (!RoleOf(*impl, name, &f->role)) {
    return impl->real->xOpen(impl->real, name, file, flags, out_flags);
  }
  const int rc = impl->real->xOpen(impl->real, name, f->real(), flags, out_flags);
  if (rc != SQLITE_OK) return rc;
  absl::StatusOr<std::unique_ptr<File>> backing = impl->storage->Open(name, {});
  if (!backing.ok() || !impl->capture->SetFile(f->role, *std::move(backing)).ok()) {
    f->real()->pMethods->xClose(f->real());
    return SQLITE_CANTOPEN;
  }
  f->base.pMethods = &Methods();
  return SQLITE_OK;
}

int Delete(sqlite3_vfs* vfs, const char* name, int sync_directory) {
  CaptureVfs::Impl* const impl = ImplOf(vfs);
  FileRole role;
  if (!RoleOf(*impl, name, &role)) return impl->real->xDelete(impl->real, name, sync_directory);
  const auto remove = [&] {
    const absl::Status removed = impl->storage->Remove(name);
    return absl::IsNotFound(removed) ? absl::OkStatus() : removed;
  };
  if (!impl->Allows("delete", role)) return SQLITE_IOERR_DELETE;
  return ResultOf(*impl, role, impl->capture->Remove(role, remove), SQLITE_IOERR_DELETE);
}

}  // namespace

CaptureVfs::CaptureVfs(std::string path, DatabaseCapture* capture, Storage* storage)
    : impl_(new Impl) {
  impl_->real = sqlite3_vfs_find(nullptr);
  impl_->path = std::move(path);
  impl_->capture = capture;
  impl_->storage = storage;
  impl_->owner = this;
  impl_->vfs = *impl_->real;
  impl_->vfs.zName = "capture";
  impl_->vfs.pNext = nullptr;
  impl_->vfs.pAppData = impl_.get();
  // The default VFS's own methods find its data through their argument, so it is passed to them.
  impl_->vfs.szOsFile = static_cast<int>(sizeof(CaptureFile)) + impl_->real->szOsFile;
  impl_->vfs.xOpen = Open;
  impl_->vfs.xDelete = Delete;
  impl_->vfs.xAccess = [](sqlite3_vfs* v, const char* name, int flags, int* out) {
    return ImplOf(v)->real->xAccess(ImplOf(v)->real, name, flags, out);
  };
  impl_->vfs.xFullPathname = [](sqlite3_vfs* v, const char* name, int n, char* out) {
    return ImplOf(v)->real->xFullPathname(ImplOf(v)->real, name, n, out);
  };
  ECHOFS_CHECK(sqlite3_vfs_register(&impl_->vfs, 0) == SQLITE_OK);
}

CaptureVfs::~CaptureVfs() { sqlite3_vfs_unregister(&impl_->vfs); }

}  // namespace echofs::fs
