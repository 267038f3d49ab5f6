#include "replication/storage.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/catch.h"
#include "tests/replication/temp_directory.h"

namespace echofs {
namespace {

OpenOptions Create() {
  OpenOptions options;
  options.create = true;
  return options;
}

}  // namespace

TEST_CASE("what is written to a file is read back, up to its end") {
  TempDirectory dir;
  auto file = PosixStorage()->Open(dir / "f", Create());
  REQUIRE(file.ok());
  REQUIRE((*file)->WriteAt(10, AsBytes("hello")).ok());
  CHECK(*(*file)->Size() == 15);
  std::uint8_t bytes[10];
  CHECK(*(*file)->ReadAt(8, bytes) == 7);
  CHECK(AsText(ByteView(bytes, 7)) == std::string_view("\0\0hello", 7));
  bytes[9] = 1;
  REQUIRE(ReadZeroFilled(**file, 8, bytes).ok());
  CHECK(bytes[9] == 0);
  REQUIRE((*file)->Truncate(11).ok());
  REQUIRE((*file)->Sync().ok());
  CHECK(*(*file)->ReadAt(10, bytes) == 1);
}

TEST_CASE("a new file gets its mode whatever the umask, an old one keeps its own") {
  TempDirectory dir;
  const mode_t old = ::umask(077);
  OpenOptions options = Create();
  options.mode = 0666;
  auto file = PosixStorage()->Open(dir / "f", options);
  ::umask(old);
  REQUIRE(file.ok());
  struct stat info;
  REQUIRE(::fstat((*file)->Descriptor(), &info) == 0);
  CHECK((info.st_mode & 07777) == 0666);
  options.mode = 0600;
  file = PosixStorage()->Open(dir / "f", options);
  REQUIRE(::fstat((*file)->Descriptor(), &info) == 0);
  CHECK((info.st_mode & 07777) == 0666);
}

TEST_CASE("errors of the file system carry a code, the path and errno") {
  TempDirectory dir;
  Storage* storage = PosixStorage();
  const absl::Status missing = storage->Open(dir / "none", {}).status();
  CHECK(missing.code() == absl::StatusCode::kNotFound);
  CHECK(ErrnoOf(missing) == ENOENT);
  CHECK(missing.ToString().find(dir / "none") != std::string::npos);
  REQUIRE(storage->Open(dir / "f", Create()).ok());
  OpenOptions exclusive = Create();
  exclusive.exclusive = true;
  CHECK(storage->Open(dir / "f", exclusive).status().code() == absl::StatusCode::kAlreadyExists);
  CHECK(ErrnoOf(storage->Open(dir / "f/g", Create()).status()) == ENOTDIR);
  CHECK(ErrnoOf(storage->Open(dir.path(), {}).status()) == EISDIR);
  OpenOptions read_only;
  read_only.read_only = true;
  CHECK_FALSE((*storage->Open(dir / "f", read_only))->WriteAt(0, AsBytes("x")).ok());
  auto full = storage->Open("/dev/full", {});
  REQUIRE(full.ok());
  const absl::Status no_space = (*full)->WriteAt(0, AsBytes("x"));
  CHECK(no_space.code() == absl::StatusCode::kResourceExhausted);
  CHECK(ErrnoOf(no_space) == ENOSPC);
}

TEST_CASE("a status that no system call made has an errno near to its code") {
  CHECK(ErrnoOf(absl::OkStatus()) == 0);
  CHECK(ErrnoOf(absl::DataLossError("x")) == EIO);
  CHECK(ErrnoOf(absl::ResourceExhaustedError("x")) == ENOSPC);
  CHECK(ErrnoOf(StatusFromErrno(EROFS, "x")) == EROFS);
}

TEST_CASE("directories are made with their parents and listed in order") {
  TempDirectory dir;
  Storage* storage = PosixStorage();
  REQUIRE(storage->MakeDirectories(dir / "a/b/c").ok());
  REQUIRE(storage->MakeDirectories(dir / "a/b/c").ok());
  for (const char* name : {"z", "m", "b"}) {
    REQUIRE(storage->Open(dir / ("a/b/" + std::string(name)), Create()).ok());
  }
  CHECK(*storage->List(dir / "a/b") == std::vector<std::string>{"b", "c", "m", "z"});
  REQUIRE(storage->Rename(dir / "a/b/z", dir / "a/b/m").ok());
  REQUIRE(storage->Remove(dir / "a/b/b").ok());
  REQUIRE(storage->SyncDirectory(dir / "a/b").ok());
  CHECK(*storage->List(dir / "a/b") == std::vector<std::string>{"c", "m"});
  CHECK(*storage->Exists(dir / "a/b/m"));
  CHECK_FALSE(*storage->Exists(dir / "a/b/z"));
  CHECK(storage->List(dir / "none").status().code() == absl::StatusCode::kNotFound);
}

// What users of the mount link to is out of bounds.
TEST_CASE("nothing is made, opened for writing, renamed or removed through a symbolic link") {
  TempDirectory dir;
  Storage* storage = PosixStorage();
  REQUIRE(storage->MakeDirectories(dir / "inside").ok());
  REQUIRE(storage->MakeDirectories(dir / "outside").ok());
  REQUIRE(storage->Open(dir / "outside/file", Create()).ok());
  REQUIRE(::symlink((dir / "outside").c_str(), (dir / "inside/directory").c_str()) == 0);
  REQUIRE(::symlink((dir / "outside/file").c_str(), (dir / "inside/link").c_str()) == 0);
  REQUIRE(storage->Open(dir / "inside/own", Create()).ok());

  CHECK(ErrnoOf(storage->Open(dir / "inside/link", OpenOptions{}).status()) == ELOOP);
  CHECK(ErrnoOf(storage->Open(dir / "inside/link", Create()).status()) == ELOOP);
  CHECK(ErrnoOf(storage->Open(dir / "inside/directory/file", OpenOptions{}).status()) == ELOOP);
  CHECK(ErrnoOf(storage->Open(dir / "inside/directory/new", Create()).status()) == ELOOP);
  CHECK(ErrnoOf(storage->MakeDirectories(dir / "inside/directory/new")) == ELOOP);
  CHECK(ErrnoOf(storage->MakeDirectories(dir / "inside/directory")) == ENOTDIR);
  CHECK(ErrnoOf(storage->Remove(dir / "inside/directory/file")) == ELOOP);
  CHECK(ErrnoOf(storage->Rename(dir / "inside/own", dir / "inside/directory/own")) == ELOOP);
  CHECK(ErrnoOf(storage->Rename(dir / "inside/directory/file", dir / "inside/file")) == ELOOP);
  CHECK(*storage->List(dir / "outside") == std::vector<std::string>{"file"});
  // A link itself may go.
  CHECK(storage->Remove(dir / "inside/link").ok());
  CHECK(*storage->List(dir / "outside") == std::vector<std::string>{"file"});
}

}  // namespace echofs
