#include "cmd/command_words.h"

#include <fmt/format.h>

#include <utility>

#include "replication/status_macros.h"

namespace echofs::cmd {
namespace {

constexpr std::string_view kBlanks = " \t\r\n";
constexpr std::string_view kShellOnly = "|&;<>()`";
// What a backslash takes its meaning from between double quotes; before others it stays.
constexpr std::string_view kEscapedInQuotes = "\"\\$`\n";

bool Contains(std::string_view set, char c) { return set.find(c) != std::string_view::npos; }

class Splitter {
 public:
  explicit Splitter(std::string_view text) : text_(text) {}

  absl::StatusOr<std::vector<std::string>> Split() {
    while (at_ < text_.size()) ECHOFS_RETURN_IF_ERROR(TakeOne());
    EndWord();
    if (words_.empty()) return Error("there is no command in it");
    return std::move(words_);
  }

 private:
  absl::Status Error(std::string_view what) const {
    return absl::InvalidArgumentError(fmt::format("'{}': {}", text_, what));
  }

  void Add(char c) {
    word_ += c;
    in_word_ = true;
  }

  // What stands behind a backslash; before the end of a line the two mean that it goes on.
  void AddEscaped() {
    if (text_[at_] != '\n') Add(text_[at_]);
    ++at_;
  }

  void EndWord() {
    if (in_word_) words_.push_back(std::move(word_));
    word_.clear();
    in_word_ = false;
  }

  // A character outside of quotes, or everything between quotes.
  absl::Status TakeOne() {
    const char c = text_[at_++];
    if (c == '\'') return TakeSingleQuoted();
    if (c == '"') return TakeDoubleQuoted();
    if (Contains(kShellOnly, c)) {
      return Error(
          fmt::format("commands are run without a shell, for which alone '{}' has a meaning; quote "
                      "it, or write: sh -c '...'",
                      c));
    }
    if (Contains(kBlanks, c)) {
      EndWord();
    } else if (c == '\\') {
      if (at_ == text_.size()) return Error("there is nothing behind the backslash at the end");
      AddEscaped();
    } else {
      Add(c);
    }
    return absl::OkStatus();
  }

  absl::Status TakeSingleQuoted() {
    const std::size_t end = text_.find('\'', at_);
    if (end == std::string_view::npos) return Error("a ' is not closed");
    in_word_ = true;
    for (; at_ < end; ++at_) Add(text_[at_]);
    ++at_;
    return absl::OkStatus();
  }

  absl::Status TakeDoubleQuoted() {
    in_word_ = true;
    while (at_ < text_.size()) {
      const char c = text_[at_++];
      if (c == '"') return absl::OkStatus();
      if (c == '\\' && at_ < text_.size() && Contains(kEscapedInQuotes, text_[at_])) {
        AddEscaped();
      } else {
        Add(c);
      }
    }
    return Error("a \" is not closed");
  }

  const std::string_view text_;
  std::size_t at_ = 0;
  std::vector<std::string> words_;
  std::string word_;
  bool in_word_ = false;  // an empty word in quotes is one too
};

}  // namespace

absl::StatusOr<std::vector<std::string>> SplitWords(std::string_view text) {
  if (text.find('\0') != std::string_view::npos) {
    return absl::InvalidArgumentError("a NUL character cannot be part of a command");
  }
  return Splitter(text).Split();
}

}  // namespace echofs::cmd
