#include "cmd/config_values.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <climits>
#include <cstdlib>
#include <limits>
#include <numeric>

#include "replication/status_macros.h"

namespace echofs::cmd {
namespace {

bool IsVariableCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

// A whole number at the start of `text`; moves `text` behind it. Nothing when there is none or it
// is too large.
std::optional<std::uint64_t> TakeNumber(std::string_view* text) {
  std::uint64_t value = 0;
  const char* end = text->data() + text->size();
  const auto [rest, error] = std::from_chars(text->data(), end, value);
  if (error != std::errc()) return std::nullopt;
  *text = {rest, static_cast<std::size_t>(end - rest)};
  return value;
}

// Levenshtein distance. Quadratic; for names only.
std::size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replace = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replace, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

std::string_view LastPart(std::string_view name) {
  const std::size_t dot = name.rfind('.');
  return dot == std::string_view::npos ? name : name.substr(dot + 1);
}

}  // namespace

std::string HostName() {
  std::array<char, HOST_NAME_MAX + 1> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "localhost";
  return name.data();
}

std::optional<std::string> ProcessEnvironment(const std::string& name) {
  if (const char* value = std::getenv(name.c_str())) return value;
  if (name == "HOSTNAME") return HostName();
  return std::nullopt;
}

absl::StatusOr<std::string> ExpandVariables(std::string_view text, const Environment& environment) {
  std::string out;
  std::size_t at = 0;
  while (true) {
    const std::size_t begin = text.find("${", at);
    out += text.substr(at, begin - at);
    if (begin == std::string_view::npos) return out;
    const std::size_t end = text.find('}', begin);
    if (end == std::string_view::npos) {
      return absl::InvalidArgumentError(fmt::format("'{}' has a '${{' without its '}}'", text));
    }
    const std::string name(text.substr(begin + 2, end - begin - 2));
    if (name.empty() || !std::all_of(name.begin(), name.end(), IsVariableCharacter)) {
      return absl::InvalidArgumentError(
          fmt::format("'${{{}}}' does not name an environment variable", name));
    }
    const std::optional<std::string> value = environment(name);
    if (!value) {
      return absl::InvalidArgumentError(fmt::format(
          "the environment variable {} is not set; set it, or write the value itself", name));
    }
    out += *value;
    at = end + 1;
  }
}

absl::StatusOr<bool> ParseBool(std::string_view text) {
  if (text == "true") return true;
  if (text == "false") return false;
  return absl::InvalidArgumentError(fmt::format("'{}' is not true or false", text));
}

absl::StatusOr<absl::Duration> ParseDuration(std::string_view text) {
  absl::Duration value;
  const bool parsed = !text.empty() && text != "0" && text[0] != '-' && text[0] != '+' &&
                      absl::ParseDuration(std::string(text), &value) &&
                      value != absl::InfiniteDuration();
  if (parsed) return value;
  return absl::InvalidArgumentError(fmt::format(
      "'{}' is not a duration; expected a number with a unit, such as 500ms, 10s or 24h", text));
}

absl::StatusOr<std::uint64_t> ParseSize(std::string_view text) {
  struct Unit {
    std::string_view name;
    std::uint64_t factor;
  };
  static constexpr std::array<Unit, 9> kUnits = {{{"B", 1},
                                                  {"KB", 1000},
                                                  {"MB", 1000000},
                                                  {"GB", 1000000000},
                                                  {"TB", 1000000000000},
                                                  {"KiB", std::uint64_t{1} << 10},
                                                  {"MiB", std::uint64_t{1} << 20},
                                                  {"GiB", std::uint64_t{1} << 30},
                                                  {"TiB", std::uint64_t{1} << 40}}};
  std::string_view rest = text;
  if (const std::optional<std::uint64_t> number = TakeNumber(&rest)) {
    for (const Unit& unit : kUnits) {
      if (rest != unit.name) continue;
      if (*number > std::numeric_limits<std::int64_t>::max() / unit.factor) break;
      return *number * unit.factor;
    }
  }
  return absl::InvalidArgumentError(fmt::format(
      "'{}' is not a size; expected a whole number with a unit, such as 64MB or 1GiB", text));
}

absl::StatusOr<std::uint32_t> ParseNumber(std::string_view text) {
  std::string_view rest = text;
  const std::optional<std::uint64_t> number = TakeNumber(&rest);
  if (number && rest.empty() && *number <= std::numeric_limits<std::uint32_t>::max()) {
    return static_cast<std::uint32_t>(*number);
  }
  return absl::InvalidArgumentError(fmt::format("'{}' is not a whole number", text));
}

std::string HostPort::ToString() const { return fmt::format("{}:{}", host, port); }

bool HostPort::IsAnyAddress() const { return host == "0.0.0.0" || host == "[::]"; }

absl::StatusOr<HostPort> ParseHostPort(std::string_view text, std::uint16_t lowest_port) {
  const std::size_t colon = text.rfind(':');
  if (colon == 0) {
    return absl::InvalidArgumentError(fmt::format(
        "'{}' has no host; expected host:port, for all interfaces 0.0.0.0{}", text, text));
  }
  if (colon != std::string_view::npos) {
    const std::string_view host = text.substr(0, colon);
    std::string_view port_text = text.substr(colon + 1);
    const std::optional<std::uint64_t> port = TakeNumber(&port_text);
    const bool bracketed = host.front() == '[' && host.back() == ']' && host.size() > 2;
    const bool host_ok = host.find_first_of(" \t\r\n/") == std::string_view::npos &&
                         (bracketed || host.find_first_of("[]:") == std::string_view::npos);
    if (host_ok && port && port_text.empty() && *port >= lowest_port && *port <= 65535) {
      return HostPort{std::string(host), static_cast<std::uint16_t>(*port)};
    }
  }
  return absl::InvalidArgumentError(fmt::format(
      "'{}' is not an address; expected host:port, such as 10.0.0.1:20202 or [::1]:20202", text));
}

std::string NearestName(std::string_view word, const std::vector<std::string>& known) {
  const auto cost = [word](const std::string& name) {
    return std::min(EditDistance(word, name), 1 + EditDistance(LastPart(word), LastPart(name)));
  };
  return *std::min_element(
      known.begin(), known.end(),
      [&](const std::string& a, const std::string& b) { return cost(a) < cost(b); });
}

}  // namespace echofs::cmd
