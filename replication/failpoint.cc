#include "replication/failpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace echofs {
namespace {

std::size_t armed_index = 0;
std::atomic<std::uint64_t> hits_left = 0;

absl::Status Arm(std::string_view text) {
  const std::size_t colon = text.find(':');
  const std::string_view name = text.substr(0, colon);
  std::uint64_t count = 1;
  if (colon != std::string_view::npos) {
    const std::string_view digits = text.substr(colon + 1);
    const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), count);
    if (result.ec != std::errc() || result.ptr != digits.data() + digits.size() || count == 0) {
      return absl::InvalidArgumentError(fmt::format(
          "{}={}: what stands behind the colon is not a number above 0", kFailpointVariable, text));
    }
  }
  const auto* const found = std::find(kFailpointNames.begin(), kFailpointNames.end(), name);
  if (found == kFailpointNames.end()) {
    return absl::InvalidArgumentError(fmt::format(
        "{}={}: there is no failpoint of this name; `echofs failpoints` lists them. The "
        "variable is for tests, unset it otherwise",
        kFailpointVariable, text));
  }
  armed_index = static_cast<std::size_t>(found - kFailpointNames.begin());
  hits_left = count;
  failpoint::armed = true;
  return absl::OkStatus();
}

}  // namespace

absl::Status ArmFailpointFromEnvironment() {
  const char* const text = std::getenv(kFailpointVariable);
  return text == nullptr || *text == '\0' ? absl::OkStatus() : Arm(text);
}

void failpoint::Hit(std::size_t index) {
  if (index != armed_index || hits_left.fetch_sub(1) != 1) return;
  std::fprintf(stderr, "failpoint %s: killing this process\n", kFailpointNames[index].data());
  std::fflush(stderr);
  std::raise(SIGKILL);
}

}  // namespace echofs
