// A node starts as a replica while applications wait for its mount: what they do before it has the locks of a database
// changes nothing, and what an earlier time as the primary has left is never taken for theirs (design L5, A1).
#include <fcntl.h>
#include <sqlite3.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "fs/database_set.h"
#include "fs/file_system.h"
#include "tests/catch.h"
#include "tests/replication/log_test_util.h"
#include "tests/replication/temp_directory.h"

namespace echofs::fs {
namespace {

using std::filesystem::copy_options;

std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

void WriteFile(const std::string& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

class Connection {
 public:
  explicit Connection(const std::string& path) {
    REQUIRE(sqlite3_open(path.c_str(), &database_) == SQLITE_OK);
  }
  ~Connection() { sqlite3_close(database_); }
  void Run(const std::string& sql) {
    char* error = nullptr;
    const int code = sqlite3_exec(database_, sql.c_str(), nullptr, nullptr, &error);
    INFO(sql << ": " << (error != nullptr ? error : ""));
    REQUIRE(code == SQLITE_OK);
  }

 private:
  sqlite3* database_ = nullptr;
};

// The disk of a node, with x.db in its log and in its files.
struct NodeDisk {
  NodeDisk() {
    std::filesystem::create_directories(directory / "files");
    std::filesystem::create_directories(directory / "tmp");
    Connection(path).Run(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, x);"
        "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<300)"
        "INSERT INTO t SELECT i, randomblob(300) FROM c");
    Start(/*read_only=*/false, /*was_replica=*/false);
  }

  void Start(bool read_only, bool was_replica) {
    set.reset();
    log.reset();
    log = OpenLog(directory / "log", log_options);
    DatabaseSetOptions options;
    options.storage = PosixStorage();
    options.log = log.get();
    options.root = directory / "files";
    options.positions_file = directory / "applied";
    options.temporary_directory = directory / "tmp";
    options.read_only = read_only;
    options.was_replica = was_replica;
    options.machine_crashed = machine_crashed;
    auto opened = DatabaseSet::Open(options);
    INFO(opened.status().ToString());
    REQUIRE(opened.ok());
    set = *std::move(opened);
  }
  void StartAsReplica(bool was_replica) { Start(/*read_only=*/true, was_replica); }

  // A transaction that was open when the node stopped: it has changed the file, and its journal is valid.
  void LeaveHotJournal() {
    Connection writer(path);
    writer.Run("PRAGMA cache_size=5; BEGIN; UPDATE t SET x=randomblob(300)");
    for (const std::string suffix : {"", "-journal"}) {
      std::filesystem::copy_file(path + suffix, directory / ("left" + suffix),
                                 copy_options::overwrite_existing);
    }
    writer.Run("ROLLBACK");
  }
  void PutHotJournal(bool with_its_file) {
    std::filesystem::copy_file(directory / "left-journal", path + "-journal");
    if (with_its_file) {
      std::filesystem::copy_file(directory / "left", path, copy_options::overwrite_existing);
    }
  }

  TempDirectory directory;
  const std::string path = directory / "files/x.db";
  ChangeLogOptions log_options;
  bool machine_crashed = false;
  std::unique_ptr<ChangeLog> log;
  std::unique_ptr<DatabaseSet> set;
};

}  // namespace

TEST_CASE(
    "A1: before a replica has a database's locks, nothing that is written gets into its files") {
  NodeDisk disk;
  const bool was_replica = GENERATE(false, true);
  if (was_replica) disk.StartAsReplica(false);
  disk.StartAsReplica(was_replica);
  FileSystem files(disk.directory / "files", disk.set.get(), PosixStorage(),
                   {[] { return std::string("a:1"); }, [] { return -1; }});
  // What an attempt to get the locks, or an earlier version, may have left there.
  const std::string content(100, 'x');
  for (const std::string suffix : {"-journal", "-wal"}) WriteFile(disk.path + suffix, content);
  const std::vector<std::uint8_t> bytes(4096, 1);
  for (const std::string name : {"x.db", "x.db-journal", "x.db-wal"}) {
    INFO(name);
    const std::string before = ReadFile(disk.directory / ("files/" + name));
    const auto entry = files.Lookup(1, name);
    REQUIRE(entry.ok());
    const InodeNumber inode = entry->node->number;
    REQUIRE(files.Open(inode, O_RDWR, false).ok());
    CHECK(!files.Write(inode, 0, bytes).ok());
    CHECK(!files.Write(inode, 8192, bytes).ok());
    AttributeChange change;
    change.size = 0;
    CHECK(!files.SetAttributes(inode, change).ok());
    CHECK(!files.Allocate(inode, 1 << 20).ok());
    CHECK(!files.Unlink(1, name).ok());
    REQUIRE(files.Release(inode, O_RDWR, false).ok());
    CHECK(ReadFile(disk.directory / ("files/" + name)) == before);
  }
  CHECK(files.Create(1, "x.db-shm", 0644, O_RDWR, {}, false).status().code() !=
        absl::StatusCode::kOk);
  // A file that is no database is the application's own.
  const auto own = files.Create(1, "notes", 0644, O_RDWR, {}, false);
  REQUIRE(own.ok());
  CHECK(files.Write(own->node->number, 0, bytes).ok());
}

TEST_CASE("L5: a node that becomes a replica at its start keeps no rollback journal") {
  NodeDisk disk;
  const bool was_replica = GENERATE(false, true);
  if (was_replica) disk.StartAsReplica(false);
  // SQLite writes the magic only when it syncs the journal.
  WriteFile(disk.path + "-journal", std::string(GENERATE(0, 512), '\0'));
  const std::string before = ReadFile(disk.path);
  disk.StartAsReplica(was_replica);
  CHECK_FALSE(std::filesystem::exists(disk.path + "-journal"));
  CHECK(ReadFile(disk.path) == before);
}

TEST_CASE(
    "L5: a writer that was still inside when the node became a replica is undone at the next "
    "start") {
  NodeDisk disk;
  disk.LeaveHotJournal();
  disk.StartAsReplica(false);
  const std::string before = ReadFile(disk.path);
  disk.PutHotJournal(/*with_its_file=*/true);
  REQUIRE(ReadFile(disk.path) != before);
  disk.StartAsReplica(true);
  CHECK_FALSE(std::filesystem::exists(disk.path + "-journal"));
  CHECK(ReadFile(disk.path) == before);
}

TEST_CASE("L5: the journal of an old state is not believed on a replica") {
  NodeDisk disk;
  disk.LeaveHotJournal();
  // The history goes on from there.
  Connection(disk.path).Run("UPDATE t SET x='new' WHERE id%7=0");
  std::filesystem::rename(disk.path, disk.directory / "next");
  disk.Start(false, false);  // taken as deleted
  std::filesystem::rename(disk.directory / "next", disk.path);
  disk.Start(false, false);
  disk.StartAsReplica(false);
  const std::string before = ReadFile(disk.path);
  disk.PutHotJournal(/*with_its_file=*/false);
  disk.StartAsReplica(true);
  CHECK_FALSE(std::filesystem::exists(disk.path + "-journal"));
  CHECK(ReadFile(disk.path) == before);
}

TEST_CASE(
    "L5: after a power loss a replica makes a database that is younger than its log from it") {
  NodeDisk disk;
  const std::string young = disk.directory / "files/young.db";
  Connection(young).Run("CREATE TABLE t(x); INSERT INTO t VALUES (zeroblob(10000))");
  const std::string before = ReadFile(young);
  std::filesystem::remove(disk.path);
  disk.log_options.segment_size = 4096;
  disk.log_options.retention_size = 1;
  disk.Start(false, false);  // x.db is taken as deleted, young.db into the log
  REQUIRE(disk.log->Sync(disk.log->last_index()).ok());
  REQUIRE(disk.log->Retain(disk.log->last_index().Next()).ok());
  REQUIRE(disk.log->first_index() > LogIndex{1});
  disk.StartAsReplica(false);  // nobody has synced its files
  WriteFile(young, before.substr(0, 5000));
  disk.machine_crashed = true;
  disk.Start(/*read_only=*/false, /*was_replica=*/true);
  CHECK(ReadFile(young) == before);
}

}  // namespace echofs::fs
