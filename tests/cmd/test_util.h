// Small helpers of the tests of cmd/.
#pragma once

#include <functional>
#include <string>

#include "tests/catch.h"

namespace echofs::cmd::test {

// A new directory below TMPDIR, else /tmp, that everybody may enter, removed with its content at
// the end.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Waits until `condition` holds, at most a generous while; returns whether it did.
bool WaitFor(const std::function<bool()>& condition);

// Content of a file, empty when there is none.
std::string ReadFile(const std::string& path);

// Matches a text that contains `part`; Catch2 3 renamed the matcher.
inline auto HasText(const std::string& part) {
#if __has_include(<catch2/catch_all.hpp>)
  return Catch::Matchers::ContainsSubstring(part);
#else
  return Catch::Matchers::Contains(part);
#endif
}

// True while a process exists and is not a zombie.
bool IsAlive(int pid);

}  // namespace echofs::cmd::test
