// Values of echofs.yml and of flags: durations, sizes, addresses. Pure functions; the errors
// (InvalidArgument) quote the value and say what was expected, the caller adds where it stood.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace echofs::cmd {

// Looks up an environment variable; nothing when it is not set.
using Environment = std::function<std::optional<std::string>(const std::string&)>;

// The environment of this process; HOSTNAME falls back to gethostname(2).
std::optional<std::string> ProcessEnvironment(const std::string& name);

// Name of this machine.
std::string HostName();

// Replaces each ${NAME} by its value. An unset variable and an unclosed "${" are errors; a "$"
// before anything else stays.
absl::StatusOr<std::string> ExpandVariables(std::string_view text, const Environment& environment);

// "true" or "false".
absl::StatusOr<bool> ParseBool(std::string_view text);
// A number with a unit, "10s", "500ms", "24h", "1h30m"; not negative, not infinite.
absl::StatusOr<absl::Duration> ParseDuration(std::string_view text);
// A whole number with a unit: B, KB, MB, GB, TB (powers of 1000), KiB, MiB, GiB, TiB (of 1024).
// Bytes.
absl::StatusOr<std::uint64_t> ParseSize(std::string_view text);
absl::StatusOr<std::uint32_t> ParseNumber(std::string_view text);

struct HostPort {
  std::string host;  // as written, an IPv6 address in brackets
  std::uint16_t port = 0;

  std::string ToString() const;
  // True for the addresses that stand for all interfaces: 0.0.0.0 and [::].
  bool IsAnyAddress() const;
};

// "host:port", "[v6-address]:port". `lowest_port`: 0 where that means any port.
absl::StatusOr<HostPort> ParseHostPort(std::string_view text, std::uint16_t lowest_port = 1);

// The one of `known` that `word` most likely means: by edit distance of the whole dotted name, or
// of the part after its last dot. `known` must not be empty.
std::string NearestName(std::string_view word, const std::vector<std::string>& known);

}  // namespace echofs::cmd
