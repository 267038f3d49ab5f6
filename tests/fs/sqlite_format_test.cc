#include "fs/sqlite_format.h"

#include "tests/catch.h"

namespace echofs::sqlite {

TEST_CASE("file names say what a file is") {
  CHECK(ClassifyFileName("a.db").role == FileRole::kMain);
  CHECK(ClassifyFileName("a.db-wal").role == FileRole::kWal);
  CHECK(ClassifyFileName("a.db-wal").database == "a.db");
  CHECK(ClassifyFileName("dir/a-journal").database == "dir/a");
  CHECK(ClassifyFileName("a.db-mj0123456Ab").role == FileRole::kSuperJournal);
  CHECK(ClassifyFileName("a.db-mj0123456").role == FileRole::kMain);
  CHECK(ClassifyFileName("-wal").role == FileRole::kMain);
}

}  // namespace echofs::sqlite
