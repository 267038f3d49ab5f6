// A SQLite VFS that brings every write to a database through a DatabaseCapture, as the mount does, without
// FUSE: so real SQLite drives the capture in a unit test.
#pragma once

#include <sqlite3.h>

#include <functional>
#include <memory>
#include <string>

#include "fs/database_capture.h"

namespace echofs::fs {

// Registered as "capture" while it lives; one at a time, one thread. All files of the database at `path` go
// through `capture`; others go to the default VFS.
class CaptureVfs {
 public:
  CaptureVfs(std::string path, DatabaseCapture* capture, Storage* storage = PosixStorage());
  ~CaptureVfs();
  CaptureVfs(const CaptureVfs&) = delete;
  CaptureVfs& operator=(const CaptureVfs&) = delete;

  // When set, asked before each operation that changes a file; returning false makes it fail with EIO, as if
  // the application had died there.
  std::function<bool(const char* operation, FileRole role)> allow;

  // When set, called before SQLite is told of an error of the capture.
  std::function<void(FileRole role)> failed;

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace echofs::fs
