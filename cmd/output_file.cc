#include "cmd/output_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>

#include <cerrno>
#include <cstdio>

#include "replication/status_macros.h"

namespace echofs::cmd {
namespace {

std::string TemporaryName(const std::string& path) { return path + ".tmp"; }

absl::Status Exists(const std::string& path) {
  return absl::AlreadyExistsError(
      fmt::format("{} exists already: choose another name, or replace it with --force", path));
}

absl::Status Move(const std::string& from, const std::string& to, bool force) {
  const unsigned flags = force ? 0 : RENAME_NOREPLACE;
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), flags) == 0) {
    return absl::OkStatus();
  }
  if (errno == EEXIST && !force) return Exists(to);
  // Some file systems cannot refuse to replace.
  if (errno == EINVAL && !force) return PosixStorage()->Rename(from, to);
  return StatusFromErrno(errno, fmt::format("cannot rename {} to {}", from, to));
}

}  // namespace

std::string DirectoryOf(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

absl::StatusOr<std::unique_ptr<OutputFile>> OutputFile::Create(const std::string& path,
                                                               bool force) {
  ECHOFS_ASSIGN_OR_RETURN(const bool exists, PosixStorage()->Exists(path));
  if (exists && !force) return Exists(path);
  std::unique_ptr<OutputFile> output(new OutputFile(path, force));
  OpenOptions options;
  options.create = true;
  options.mode = 0600;
  ECHOFS_ASSIGN_OR_RETURN(std::unique_ptr<File> file,
                          PosixStorage()->Open(TemporaryName(path), options));
  if (::flock(file->Descriptor(), LOCK_EX | LOCK_NB) != 0) {
    return absl::AlreadyExistsError(
        fmt::format("another process writes to {} at the moment", TemporaryName(path)));
  }
  ECHOFS_RETURN_IF_ERROR(file->Truncate(0));
  output->file_ = std::move(file);
  return output;
}

OutputFile::~OutputFile() {
  if (file_ != nullptr && !finished_) PosixStorage()->Remove(TemporaryName(path_)).IgnoreError();
}

absl::Status OutputFile::Finish() {
  ECHOFS_RETURN_IF_ERROR(file_->Sync());
  ECHOFS_RETURN_IF_ERROR(Move(TemporaryName(path_), path_, force_));
  finished_ = true;
  return PosixStorage()->SyncDirectory(DirectoryOf(path_));
}

}  // namespace echofs::cmd
