#include "replication/parent_directory.h"

#include <fcntl.h>
#include <unistd.h>

#include "replication/storage.h"

namespace echofs {

std::string DirectoryOf(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

ParentDirectory::ParentDirectory(const std::string& path)
    : name_(path.substr(path.rfind('/') + 1)),
      fd_(OpenWithoutLinks(DirectoryOf(path), O_PATH | O_DIRECTORY, 0)) {}

ParentDirectory::~ParentDirectory() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace echofs
