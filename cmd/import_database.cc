#include "cmd/import_database.h"

#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <cerrno>
#include <cstdlib>
#include <memory>
#include <optional>
#include <utility>

#include "absl/time/clock.h"
#include "cmd/admin_client.h"
#include "cmd/import_source.h"
#include "cmd/output_file.h"
#include "cmd/progress.h"
#include "cmd/tools_client.h"
#include "replication/status_macros.h"

namespace echofs::cmd {
namespace {

// For a writer, or in rollback modes a reader, of the database that is replaced.
constexpr absl::Duration kLockLimit = absl::Seconds(60);
// The log has a transaction a moment after its COMMIT.
constexpr absl::Duration kLoggedLimit = absl::Seconds(60);
constexpr absl::Duration kLoggedPoll = absl::Milliseconds(5);

class SentFile final : public ByteSource {
 public:
  SentFile(const File* file, std::uint64_t size, Progress* progress)
      : file_(file), size_(size), progress_(progress) {}
  absl::StatusOr<std::size_t> Read(MutableByteView out) override {
    ECHOFS_ASSIGN_OR_RETURN(const std::size_t n, file_->ReadAt(offset_, out));
    offset_ += n;
    progress_->Set(offset_, size_);
    return n;
  }

 private:
  const File* const file_;
  const std::uint64_t size_;
  Progress* const progress_;
  std::uint64_t offset_ = 0;
};

// For a copy that nobody else can read.
class TemporaryDirectory {
 public:
  static absl::StatusOr<std::unique_ptr<TemporaryDirectory>> Create() {
    const char* parent = std::getenv("TMPDIR");
    std::string path =
        fmt::format("{}/echofs-import-XXXXXX", parent != nullptr ? parent : "/var/tmp");
    if (::mkdtemp(path.data()) == nullptr) {
      return StatusFromErrno(errno, fmt::format("cannot create {}", path));
    }
    return std::unique_ptr<TemporaryDirectory>(new TemporaryDirectory(std::move(path)));
  }
  ~TemporaryDirectory() {
    PosixStorage()->Remove(file()).IgnoreError();
    ::rmdir(path_.c_str());
  }
  std::string file() const { return path_ + "/database"; }

 private:
  explicit TemporaryDirectory(std::string path) : path_(std::move(path)) {}
  const std::string path_;
};

class Importer {
 public:
  explicit Importer(const ImportOptions& options)
      : options_(options), progress_(fmt::format("checking {}", options.file)) {}

  absl::StatusOr<DatabasePosition> Run() {
    ECHOFS_ASSIGN_OR_RETURN(admin_, AdminClient::Connect(options_.data_dir));
    ECHOFS_ASSIGN_OR_RETURN(tools_, ToolsClient::Connect(options_.data_dir));
    ECHOFS_ASSIGN_OR_RETURN(const NodeStatus status, admin_->Status());
    ECHOFS_RETURN_IF_ERROR(FindExisting());
    ECHOFS_ASSIGN_OR_RETURN(source_, ImportSource::Open(options_.file, options_.received));
    if (!options_.skip_check) ECHOFS_RETURN_IF_ERROR(source_->CheckIntegrity());
    if (status.role == "primary") return ImportHere();
    if (!options_.received) return Forward();
    return absl::UnavailableError("this node is not the primary any more");
  }

 private:
  absl::Status FindExisting() {
    existing_.reset();
    ECHOFS_ASSIGN_OR_RETURN(const std::vector<DatabaseInfo> databases, admin_->Databases());
    for (const DatabaseInfo& database : databases) {
      if (database.name == options_.database) existing_ = database;
    }
    if (!existing_ || options_.replace) return absl::OkStatus();
    return absl::AlreadyExistsError(
        fmt::format("there is a database {} already: choose another name, or replace its content "
                    "with --replace",
                    options_.database));
  }

  absl::StatusOr<DatabasePosition> ImportHere() {
    ECHOFS_ASSIGN_OR_RETURN(const std::string mount_point, tools_->MountPoint());
    ECHOFS_RETURN_IF_ERROR(CheckMount(mount_point));
    const ImportTarget target = {mount_point + "/" + options_.database, !existing_, kLockLimit};
    if (existing_) {
      ECHOFS_RETURN_IF_ERROR(FitToExisting(target.path));
    } else {
      ECHOFS_RETURN_IF_ERROR(MakePlace(target.path));
    }
    const Txid before = existing_ ? existing_->txid : Txid{};
    progress_.Begin(fmt::format("importing {}", options_.database));
    ECHOFS_RETURN_IF_ERROR(source_->CopyInto(target, &progress_));
    progress_.Begin("waiting for the log");
    return WaitLogged(before);
  }

  // A mount that is not there would leave a database in a directory.
  static absl::Status CheckMount(const std::string& mount_point) {
    struct statfs info;
    if (::statfs(mount_point.c_str(), &info) != 0) {
      return StatusFromErrno(errno, fmt::format("cannot reach the mount {}", mount_point));
    }
    if (info.f_type == FUSE_SUPER_MAGIC) return absl::OkStatus();
    return absl::FailedPreconditionError(
        fmt::format("the mount {} cannot be seen from here: run this command where the node runs "
                    "(in its container)",
                    mount_point));
  }

  // An empty file may be there, or one that is empty when its journal is rolled back: what an application, or an
  // import, that was interrupted has left.
  static absl::Status MakePlace(const std::string& path) {
    struct stat info;
    if (::lstat(path.c_str(), &info) == 0) {
      ECHOFS_ASSIGN_OR_RETURN(const bool journal, PosixStorage()->Exists(path + "-journal"));
      if (S_ISREG(info.st_mode) && journal) {
        ECHOFS_RETURN_IF_ERROR(ReadFormat(path, kLockLimit).status());
        if (::lstat(path.c_str(), &info) != 0) return MakePlace(path);
      }
      if (S_ISREG(info.st_mode) && info.st_size == 0) return absl::OkStatus();
      return absl::AlreadyExistsError(
          fmt::format("{} is there already, and is no database of the cluster: remove it, or "
                      "choose another name",
                      path));
    }
    return PosixStorage()->MakeDirectories(DirectoryOf(path));
  }

  // What is there keeps its page size and journal mode: with another page size a WAL database cannot be written to, and
  // applications that are connected need not be ready for another mode.
  absl::Status FitToExisting(const std::string& path) {
    ECHOFS_ASSIGN_OR_RETURN(const DatabaseFormat format, ReadFormat(path, kLockLimit));
    const bool fits =
        source_->page_size() == format.page_size && (format.wal_mode || !source_->wal_mode());
    if (fits) return absl::OkStatus();
    ECHOFS_RETURN_IF_ERROR(MakeCopy());
    progress_.Begin(fmt::format("rewriting it with pages of {} bytes", format.page_size));
    ECHOFS_RETURN_IF_ERROR(Rewrite(copy_->file(), format.page_size));
    ECHOFS_ASSIGN_OR_RETURN(source_, ImportSource::Open(copy_->file(), true));
    return absl::OkStatus();
  }

  absl::Status MakeCopy() {
    ECHOFS_ASSIGN_OR_RETURN(copy_, TemporaryDirectory::Create());
    progress_.Begin(fmt::format("copying {}", options_.file));
    return source_->CopyInto({copy_->file(), true, kLockLimit}, &progress_);
  }

  absl::StatusOr<DatabasePosition> Forward() {
    ECHOFS_RETURN_IF_ERROR(MakeCopy());
    ECHOFS_ASSIGN_OR_RETURN(const std::unique_ptr<File> file,
                            PosixStorage()->Open(copy_->file(), OpenOptions{.read_only = true}));
    ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t size, file->Size());
    progress_.Begin(fmt::format("sending {} to the primary", options_.database));
    SentFile sent(file.get(), size, &progress_);
    return tools_->ForwardImport(options_.database, size, options_.replace, sent);
  }

  absl::StatusOr<DatabasePosition> WaitLogged(Txid before) {
    const absl::Time deadline = absl::Now() + kLoggedLimit;
    do {
      ECHOFS_ASSIGN_OR_RETURN(const std::vector<DatabaseInfo> databases, admin_->Databases());
      for (const DatabaseInfo& database : databases) {
        if (database.name != options_.database || database.txid <= before) continue;
        DatabasePosition position;
        position.name = database.name;
        position.txid = database.txid;
        position.digest = database.digest;
        position.page_size = database.page_size;
        position.page_count = database.pages;
        return position;
      }
      absl::SleepFor(kLoggedPoll);
    } while (absl::Now() < deadline);
    return absl::DeadlineExceededError(
        fmt::format("{} was committed in the mount, but is not in the log yet: see the node's log",
                    options_.database));
  }

  const ImportOptions& options_;
  Progress progress_;
  std::unique_ptr<AdminClient> admin_;
  std::unique_ptr<ToolsClient> tools_;
  std::optional<DatabaseInfo> existing_;
  std::unique_ptr<TemporaryDirectory> copy_;
  std::unique_ptr<ImportSource> source_;
};

}  // namespace

absl::StatusOr<DatabasePosition> ImportDatabase(const ImportOptions& options) {
  return Importer(options).Run();
}

}  // namespace echofs::cmd
