#include "tests/cmd/test_util.h"

#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "replication/status_macros.h"

namespace echofs::cmd::test {
namespace {

constexpr std::chrono::seconds kPatience{180};
constexpr std::chrono::milliseconds kPollInterval{2};

}  // namespace

TempDir::TempDir() {
  const char* parent = std::getenv("TMPDIR");
  path_ = std::string(parent != nullptr ? parent : "/tmp") + "/test-XXXXXX";
  ECHOFS_CHECK(::mkdtemp(path_.data()) != nullptr);
  ECHOFS_CHECK(::chmod(path_.c_str(), 0755) == 0);
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

bool WaitFor(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(kPollInterval);
  }
  return true;
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

bool IsAlive(int pid) {
  const std::string stat = ReadFile("/proc/" + std::to_string(pid) + "/stat");
  const std::size_t end = stat.rfind(')');
  return end != std::string::npos && stat.size() > end + 2 && stat[end + 2] != 'Z' &&
         stat[end + 2] != 'X';
}

}  // namespace echofs::cmd::test
