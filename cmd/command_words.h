// A command as a text, such as `cmd` in echofs.yml, -> its words.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace echofs::cmd {

// Splits as a shell splits words: at blanks, with 'single' and "double" quotes and backslashes.
// Nothing is expanded, and what would need a shell (pipes, redirections, several commands) is an
// error, as are an open quote and a text without a word. InvalidArgument, for people.
absl::StatusOr<std::vector<std::string>> SplitWords(std::string_view text);

}  // namespace echofs::cmd
