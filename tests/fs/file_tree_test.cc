#include "fs/file_tree.h"

#include "replication/storage.h"
#include "tests/catch.h"
#include "tests/replication/temp_directory.h"

namespace echofs::fs {

TEST_CASE("inode numbers are never used twice, also when a name comes back") {
  FileTree tree;
  const auto first = tree.Lookup(tree.root(), "a.db-journal", ControlFile::kNone, 100);
  CHECK(tree.Lookup(tree.root(), "a.db-journal", ControlFile::kNone, 100) == first);
  const InodeNumber number = first->number;
  tree.Remove(tree.root(), "a.db-journal");
  CHECK(tree.Find(number) == first);  // somebody may have it open
  CHECK(tree.View(*first).removed);
  tree.Forget(number, 2);
  CHECK(tree.Find(number) == nullptr);
  const auto second = tree.Lookup(tree.root(), "a.db-journal", ControlFile::kNone, 100);
  CHECK(second->number > number);
}

TEST_CASE("a name that means another file below gets a new node") {
  FileTree tree;
  const auto before = tree.Lookup(tree.root(), "a.db", ControlFile::kNone, 100);
  const auto after = tree.Lookup(tree.root(), "a.db", ControlFile::kNone, 101);
  CHECK(before->number != after->number);
  CHECK(tree.View(*before).removed);
  CHECK_FALSE(tree.View(*after).removed);
}

TEST_CASE("paths follow renames of directories, roles follow names") {
  FileTree tree;
  const auto directory = tree.Lookup(tree.root(), "d", ControlFile::kNone, 1);
  const auto file = tree.Lookup(directory, "x", ControlFile::kNone, 2);
  CHECK(tree.Path(*file) == "d/x");
  tree.Rename(tree.root(), "d", tree.root(), "e");
  CHECK(tree.Path(*file) == "e/x");
  CHECK(tree.ChildPath(*directory, "y") == "e/y");
  tree.Rename(directory, "x", tree.root(), "z-wal");
  CHECK(tree.Path(*file) == "z-wal");
  CHECK(tree.View(*file).role == sqlite::FileRole::kWal);
}

TEST_CASE("open descriptors are counted, writers apart") {
  FileTree tree;
  const auto file = tree.Lookup(tree.root(), "x", ControlFile::kNone, 2);
  tree.CountOpen(*file, true);
  tree.CountOpen(*file, false);
  CHECK(tree.CountClose(*file, true).last_writer);
  CHECK(tree.CountClose(*file, false).last);
}

// A close is told late by the kernel, while the file is opened again.
TEST_CASE("a file that has been opened again keeps its backing file when the last close is told") {
  FileTree tree;
  TempDirectory directory;
  OpenOptions options;
  options.create = true;
  const auto node = tree.Lookup(tree.root(), "x", ControlFile::kNone, 2);
  tree.SetFile(*node, PosixStorage()->Open(directory / "x", options).value());
  tree.CountOpen(*node, true);
  CHECK(tree.CountClose(*node, true).last);
  tree.CountOpen(*node, true);
  tree.DropUnusedFile(*node);
  CHECK(tree.View(*node).file != nullptr);
  tree.CountClose(*node, true);
  tree.DropUnusedFile(*node);
  CHECK(tree.View(*node).file == nullptr);
}

}  // namespace echofs::fs
