// The directory that a name is in, for calls that act on the name (mkdirat, unlinkat and the like) and are not to be led
// elsewhere: users of the mount may put a symbolic link in the place of a directory at any moment.
#pragma once

#include <string>

namespace echofs {

// Of one thread.
class ParentDirectory {
 public:
  // Opens the directory of `path` without following a link, also above it.
  explicit ParentDirectory(const std::string& path);
  ~ParentDirectory();
  ParentDirectory(const ParentDirectory&) = delete;
  ParentDirectory& operator=(const ParentDirectory&) = delete;

  // -1 when it could not be opened; errno says why until another call.
  int fd() const { return fd_; }
  // The last part of the path.
  const char* name() const { return name_.c_str(); }

 private:
  const std::string name_;
  const int fd_;
};

// The path without its last part: "." for a mere name, "/" for what is in the root directory.
std::string DirectoryOf(const std::string& path);

}  // namespace echofs
