#include "cmd/http_server.h"

namespace echofs::cmd {
namespace {

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::optional<std::string> Decode(std::string_view text) {
  std::string decoded;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      decoded += text[i];
      continue;
    }
    if (i + 2 >= text.size()) return std::nullopt;
    const int high = HexDigit(text[i + 1]);
    const int low = HexDigit(text[i + 2]);
    if (high < 0 || low < 0) return std::nullopt;
    decoded += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return decoded;
}

}  // namespace

std::optional<HttpRequest> ParseHttpTarget(std::string_view target) {
  if (target.empty() || target[0] != '/') return std::nullopt;
  const std::size_t mark = target.find('?');
  HttpRequest request;
  const std::optional<std::string> path = Decode(target.substr(0, mark));
  if (!path) return std::nullopt;
  request.path = *path;
  std::string_view rest = mark == std::string_view::npos ? "" : target.substr(mark + 1);
  while (!rest.empty()) {
    const std::size_t end = rest.find('&');
    const std::string_view part = rest.substr(0, end);
    rest = end == std::string_view::npos ? "" : rest.substr(end + 1);
    if (part.empty()) continue;
    const std::size_t equals = part.find('=');
    const std::optional<std::string> key = Decode(part.substr(0, equals));
    const std::optional<std::string> value =
        Decode(equals == std::string_view::npos ? "" : part.substr(equals + 1));
    if (!key || !value) return std::nullopt;
    request.query.emplace(*key, *value);
  }
  return request;
}

}  // namespace echofs::cmd
