#include "replication/token_file.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "replication/limits.h"
#include "replication/status_macros.h"

namespace echofs {
namespace {

bool IsToken(std::string_view text) {
  return text.size() >= kTokenSizeMin && text.size() <= kTokenSizeMax &&
         std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 0x7f; });
}

absl::StatusOr<std::vector<std::string>> ParseTokens(const std::string& path,
                                                     std::string_view text) {
  std::vector<std::string> tokens;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.empty()) continue;
    if (!IsToken(line) || tokens.size() == kTokensMax) {
      return absl::FailedPreconditionError(fmt::format(
          "{} must have a token of {} to {} printable characters without spaces in each "
          "line, {} lines at most: `openssl rand -hex 32` makes one",
          path, kTokenSizeMin, kTokenSizeMax, kTokensMax));
    }
    tokens.emplace_back(line);
  }
  if (tokens.empty()) {
    return absl::FailedPreconditionError(
        fmt::format("{} is empty; `openssl rand -hex 32` makes a token", path));
  }
  return tokens;
}

// Looks at every byte, wherever the first difference is.
bool IsEqual(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  volatile unsigned char difference = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference = static_cast<unsigned char>(difference | (a[i] ^ b[i]));
  }
  return difference == 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TokenFile>> TokenFile::Open(const std::string& path) {
  std::unique_ptr<TokenFile> file(new TokenFile(path));
  absl::MutexLock lock(&file->mutex_);
  ECHOFS_RETURN_IF_ERROR(file->Read());
  return file;
}

absl::Status TokenFile::Read() {
  stamp_ = StampOf(path_);
  next_look_ = absl::Now() + kCredentialLookInterval;
  ECHOFS_ASSIGN_OR_RETURN(const std::string text, ReadCredentialFile(path_, /*secret=*/true));
  ECHOFS_ASSIGN_OR_RETURN(tokens_, ParseTokens(path_, text));
  return absl::OkStatus();
}

void TokenFile::ReadIfChanged() {
  if (absl::Now() < next_look_) return;
  next_look_ = absl::Now() + kCredentialLookInterval;
  // What failed is tried again: the reason may lie outside the file.
  if (StampOf(path_) == stamp_ && last_error_.empty()) return;
  const std::string before = std::exchange(last_error_, std::string(Read().message()));
  if (last_error_.empty()) {
    spdlog::info("read the cluster's token anew from {}", path_);
  } else if (last_error_ != before) {
    spdlog::warn("{}. Until that is mended the tokens stay as they were", last_error_);
  }
}

std::string TokenFile::ToSend() {
  absl::MutexLock lock(&mutex_);
  ReadIfChanged();
  return tokens_.front();
}

std::string TokenFile::last_error() {
  absl::MutexLock lock(&mutex_);
  ReadIfChanged();
  return last_error_;
}

bool TokenFile::Accepts(std::string_view token) {
  absl::MutexLock lock(&mutex_);
  ReadIfChanged();
  bool accepted = false;
  for (const std::string& known : tokens_) accepted |= IsEqual(known, token);
  return accepted;
}

}  // namespace echofs
