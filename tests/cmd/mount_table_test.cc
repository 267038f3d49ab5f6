#include "cmd/mount_table.h"

#include "tests/catch.h"

namespace echofs::cmd {
namespace {

TEST_CASE("mount table: fields, optional tags and escapes") {
  const std::vector<MountEntry> table = ParseMountTable(
      "36 35 0:52 / /mnt/a\\040b\\134c rw,noatime shared:1 master:2 - fuse.echofs echofs rw\n"
      "not a line\n"
      "37 35 254:1 /sub /x rw - ext4 /dev/vda rw\n"
      "38 36 0:53 / /x rw - fuse.echofs echofs rw\n");
  REQUIRE(table.size() == 3);
  CHECK(table[0].id == 36);
  CHECK(table[0].minor == 52);
  CHECK(table[0].mount_point == "/mnt/a b\\c");
  CHECK(table[0].type == "fuse.echofs");
  CHECK(table[1].major == 254);
  CHECK(table[1].type == "ext4");
  CHECK(FindMountOn(table, "/x")->id == 38);
  CHECK_FALSE(FindMountOn(table, "/y").has_value());
}

TEST_CASE("mount table: the kernel's own is understood") {
  CHECK(FindMountOn(ReadMountTable(), "/proc")->type == "proc");
}

}  // namespace
}  // namespace echofs::cmd
