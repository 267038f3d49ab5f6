// What a start makes of files that a crash left (design L5).
#include "fs/recovery.h"

#include <filesystem>
#include <limits>
#include <string>

#include "fs/applied_positions.h"
#include "tests/catch.h"
#include "tests/fs/capture_fixture.h"

namespace echofs::fs {
namespace {

using std::filesystem::copy_options;

RecoveryContext ContextOf(CaptureFixture& f) {
  return {PosixStorage(), f.log_.get(), f.directory_.path()};
}

// Ends the application of the fixture without any further change of the files.
void Die(CaptureFixture& f) {
  f.vfs_->allow = [](const char*, FileRole) { return false; };
  f.Close();
  f.vfs_.reset();
}

// Gives a hot journal the name of a super-journal, as SQLite does for a transaction over several databases.
void NameSuperJournal(const std::string& journal, const std::string& name) {
  auto file = PosixStorage()->Open(journal, {});
  REQUIRE(file.ok());
  const std::uint64_t size = *(*file)->Size();
  std::vector<std::uint8_t> tail(4 + name.size() + 16);
  StoreBe32(tail.data(), LockPage(4096));
  std::copy(name.begin(), name.end(), tail.begin() + 4);
  std::uint8_t* const rest = tail.data() + 4 + name.size();
  std::uint32_t sum = 0;
  for (const char c : name) sum += static_cast<std::uint32_t>(c);
  StoreBe32(rest, static_cast<std::uint32_t>(name.size()));
  StoreBe32(rest + 4, sum);
  REQUIRE((*file)->ReadAt(0, MutableByteView(rest + 8, 8)).ok());
  REQUIRE((*file)->WriteAt(size, tail).ok());
}

// A database with an open transaction that has reached the file; returns its log position.
DatabasePosition MakeHotJournal(CaptureFixture& f) {
  f.Open();
  f.Run("pragma cache_size=5");
  f.Run("create table t(id integer primary key, v)");
  f.Run(Fill(100, 1000));
  const DatabasePosition before = f.capture_->position();
  REQUIRE(f.Try("begin; update t set v=v||'x'; delete from t where id>60") == SQLITE_OK);
  REQUIRE(f.Try("pragma cache_spill=on") == SQLITE_OK);
  Die(f);
  return before;
}

}  // namespace

TEST_CASE("L5: a journal whose super-journal is still there is rolled back") {
  CaptureFixture f;
  const DatabasePosition before = MakeHotJournal(f);
  // The application saw the mount at another path.
  NameSuperJournal(f.path_ + "-journal", "/litefs/x.db-mj012345678");
  REQUIRE(PosixStorage()->Open(f.directory_ / "x.db-mj012345678", {.create = true}).ok());
  const auto fate = RecoverJournal(ContextOf(f), "x.db");
  REQUIRE(fate.ok());
  CHECK(*fate == JournalFate::kRolledBack);
  REQUIRE(RemoveJournal(ContextOf(f), "x.db").ok());
  f.MakeCapture();
  f.Open();
  f.Check();
  CHECK(f.capture_->position() == before);
}

TEST_CASE("L5: a super-journal is looked for below the root, never in the mount") {
  CaptureFixture f;
  MakeHotJournal(f);
  const std::string mount_point = f.directory_ / "mnt";
  std::filesystem::create_directory(mount_point);
  NameSuperJournal(f.path_ + "-journal", mount_point + "/x.db-mj012345678");
  RecoveryContext context = ContextOf(f);
  context.mount_point = mount_point;
  REQUIRE(PosixStorage()->Open(mount_point + "/x.db-mj012345678", {.create = true}).ok());
  auto fate = RecoverJournal(context, "x.db");
  REQUIRE(fate.ok());
  CHECK(*fate == JournalFate::kCommitted);
  REQUIRE(PosixStorage()->Open(f.directory_ / "x.db-mj012345678", {.create = true}).ok());
  fate = RecoverJournal(context, "x.db");
  REQUIRE(fate.ok());
  CHECK(*fate == JournalFate::kRolledBack);
}

TEST_CASE("L5: a journal whose super-journal is gone belongs to a committed transaction") {
  CaptureFixture f;
  const DatabasePosition before = MakeHotJournal(f);
  const std::string journal_path = f.path_ + "-journal";
  NameSuperJournal(journal_path, "/litefs/x.db-mj012345678");
  const auto fate = RecoverJournal(ContextOf(f), "x.db");
  REQUIRE(fate.ok());
  CHECK(*fate == JournalFate::kCommitted);

  f.MakeCapture();
  auto main = PosixStorage()->Open(f.path_, {});
  REQUIRE(f.capture_->SetFile(FileRole::kMain, *std::move(main)).ok());
  auto journal = PosixStorage()->Open(journal_path, {});
  REQUIRE(journal.ok());
  const auto content = ReadJournal(**journal);
  REQUIRE(content.ok());
  REQUIRE(content->has_value());
  CHECK((*content)->super_journal == "/litefs/x.db-mj012345678");
  REQUIRE(f.capture_->SetFile(FileRole::kJournal, *std::move(journal)).ok());
  REQUIRE(f.capture_->TakeJournal(**content).ok());
  REQUIRE(PosixStorage()->Remove(journal_path).ok());
  f.Check();
  CHECK(f.capture_->position().txid == before.txid.Next());
}

TEST_CASE("L5: a WAL is folded into its database, and redo of known entries changes nothing") {
  CaptureFixture f;
  f.Open();
  f.Run("pragma journal_mode=wal");
  f.Run("create table t(id integer primary key, v)");
  f.Run(Fill(50, 1000));
  f.Run("delete from t where id>30");
  f.Run("vacuum");
  std::filesystem::copy(f.path_, f.directory_ / "main.copy");
  std::filesystem::copy(f.path_ + "-wal", f.directory_ / "wal.copy");
  Die(f);
  std::filesystem::copy(f.directory_ / "main.copy", f.path_, copy_options::overwrite_existing);
  std::filesystem::copy(f.directory_ / "wal.copy", f.path_ + "-wal",
                        copy_options::overwrite_existing);
  REQUIRE(FoldWal(ContextOf(f), "x.db").ok());
  CHECK_FALSE(std::filesystem::exists(f.path_ + "-wal"));
  const auto same_as_image = [&f] {
    auto file = PosixStorage()->Open(f.path_, {});
    std::vector<std::uint8_t> bytes(*(*file)->Size());
    REQUIRE((*file)->ReadAt(0, bytes).ok());
    return bytes == f.image_.bytes;
  };
  CHECK(same_as_image());

  // Any suffix of the history may be applied again.
  const LogIndex last = f.log_->last_index();
  const auto done =
      RedoEntries(ContextOf(f), "x.db", LogIndex{last.value - 2}, std::numeric_limits<int>::max());
  REQUIRE(done.ok());
  CHECK(*done == last);
  CHECK(same_as_image());
  // And the whole history makes the database from nothing.
  std::filesystem::remove(f.path_);
  CHECK(*LogHasAll(ContextOf(f), "x.db"));
  CHECK_FALSE(*LogHasAll(ContextOf(f), "y.db"));
  REQUIRE(RedoEntries(ContextOf(f), "x.db", LogIndex{}, std::numeric_limits<int>::max()).ok());
  CHECK(same_as_image());
}

TEST_CASE("L5: of a WAL that got to the disk before the log only what the log has is taken") {
  CaptureFixture f;
  f.Open();
  f.Run("pragma journal_mode=wal");
  f.Run("create table t(id integer primary key, v)");
  f.Run(Fill(50, 1000));
  f.Run("delete from t where id>30");
  const DatabasePosition logged = f.capture_->position();
  const bool ahead = GENERATE(true, false);
  if (ahead) f.Run("update t set v='new'; delete from t where id>20");
  Die(f);
  REQUIRE(FoldWal(ContextOf(f), "x.db", &logged).ok());
  const auto digest = FileDigest(ContextOf(f), "x.db", logged.page_size);
  REQUIRE(digest.ok());
  CHECK(*digest == logged.digest);
  CHECK_FALSE(std::filesystem::exists(f.path_ + "-wal"));
}

TEST_CASE("a journal that is cut or damaged ends at its last sound record") {
  CaptureFixture f;
  MakeHotJournal(f);
  auto journal = PosixStorage()->Open(f.path_ + "-journal", {});
  REQUIRE(journal.ok());
  const auto whole = ReadJournal(**journal);
  REQUIRE(whole.ok());
  REQUIRE(whole->has_value());
  REQUIRE((*whole)->pages.size() > 5);
  const std::uint64_t size = *(*journal)->Size();
  for (std::uint64_t cut = 0; cut < size; cut += 997) {
    REQUIRE((*journal)->Truncate(size - cut).ok());
    const auto read = ReadJournal(**journal);
    REQUIRE(read.ok());
    if (*read) CHECK((*read)->pages.size() <= (*whole)->pages.size());
  }
  REQUIRE((*journal)->Truncate(0).ok());
  const auto none = ReadJournal(**journal);
  REQUIRE(none.ok());
  CHECK_FALSE(none->has_value());
}

TEST_CASE("what was synced counts while other databases go, and not for a slot that came later") {
  TempDirectory directory;
  auto opened = AppliedPositions::Open(PosixStorage(), directory / "applied");
  REQUIRE(opened.ok());
  AppliedPositions& positions = **opened;
  REQUIRE(positions.Set("a.db", LogIndex{7}, Txid{3}).ok());
  REQUIRE(positions.Set("gone.db", LogIndex{8}, Txid{1}).ok());
  const std::uint64_t generation = positions.Generation("a.db");
  REQUIRE(positions.Remove("gone.db").ok());
  REQUIRE(positions.SetSynced("a.db", LogIndex{7}, generation).ok());
  CHECK(positions.Get("a.db")->synced_index == LogIndex{7});
  REQUIRE(positions.Remove("a.db").ok());
  CHECK(positions.Generation("a.db") == 0);
  REQUIRE(positions.SetSynced("a.db", LogIndex{7}, generation).ok());
  CHECK_FALSE(positions.Get("a.db").has_value());
  REQUIRE(positions.Set("a.db", LogIndex{2}, Txid{1}).ok());
  REQUIRE(positions.SetSynced("a.db", LogIndex{7}, generation).ok());
  CHECK(positions.Get("a.db")->synced_index == LogIndex{});
}

TEST_CASE("applied positions survive a restart, and a damaged slot counts as free") {
  TempDirectory directory;
  const std::string path = directory / "applied";
  {
    auto positions = AppliedPositions::Open(PosixStorage(), path);
    REQUIRE(positions.ok());
    REQUIRE((*positions)->Set("a.db", LogIndex{7}, Txid{3}).ok());
    REQUIRE((*positions)->Set("dir/b.db", LogIndex{8}, Txid{1}).ok());
    REQUIRE((*positions)->SetSynced("a.db", LogIndex{6}, (*positions)->Generation("a.db")).ok());
    REQUIRE((*positions)->Set("a.db", LogIndex{9}, Txid{4}).ok());
    REQUIRE((*positions)->Set("gone.db", LogIndex{1}, Txid{1}).ok());
    REQUIRE((*positions)->Remove("gone.db").ok());
  }
  {
    auto positions = AppliedPositions::Open(PosixStorage(), path);
    REQUIRE(positions.ok());
    REQUIRE((*positions)->Get("a.db").has_value());
    CHECK((*positions)->Get("a.db")->index == LogIndex{9});
    CHECK((*positions)->Get("a.db")->txid == Txid{4});
    CHECK((*positions)->Get("a.db")->synced_index == LogIndex{6});
    CHECK((*positions)->Get("dir/b.db")->index == LogIndex{8});
    CHECK_FALSE((*positions)->Get("gone.db").has_value());
  }
  {
    auto file = PosixStorage()->Open(path, {});
    REQUIRE(file.ok());
    const std::uint8_t bad = 0xff;
    REQUIRE((*file)->WriteAt(48 + 17, ByteView(&bad, 1)).ok());
  }
  auto positions = AppliedPositions::Open(PosixStorage(), path);
  REQUIRE(positions.ok());
  CHECK_FALSE((*positions)->Get("a.db").has_value());
  CHECK((*positions)->Get("dir/b.db")->index == LogIndex{8});
  {
    auto file = PosixStorage()->Open(path, {});
    const std::uint8_t newer[4] = {0, 0, 0, 9};
    REQUIRE((*file)->WriteAt(8, newer).ok());
  }
  const auto refused = AppliedPositions::Open(PosixStorage(), path);
  REQUIRE_FALSE(refused.ok());
  CHECK(std::string(refused.status().message()).find("newer") != std::string::npos);
}

}  // namespace echofs::fs
