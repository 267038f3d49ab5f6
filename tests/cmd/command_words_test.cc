#include "cmd/command_words.h"

#include "tests/catch.h"
#include "tests/cmd/test_util.h"

namespace echofs::cmd {
namespace {

using Words = std::vector<std::string>;
using test::HasText;

std::string ErrorOf(std::string_view text) {
  const absl::StatusOr<Words> words = SplitWords(text);
  REQUIRE_FALSE(words.ok());
  return std::string(words.status().message());
}

// What sh makes of a text, its words separated by newlines.
std::string ShellWords(const std::string& text) {
  std::FILE* pipe = ::popen(("printf '%s\\n' " + text).c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::string output(4096, '\0');
  output.resize(std::fread(output.data(), 1, output.size(), pipe));
  REQUIRE(::pclose(pipe) == 0);
  return output;
}

TEST_CASE("command words: blanks separate, quotes and backslashes join, as in a shell") {
  for (const std::string text :
       {"a", " a  b\tc ", "a 'b c' d", "a \"b c\" d", "a'b'\"c\"d", "'' \"\" x", "a\\ b \\'c\\'",
        "\"a\\\"b\\\\c\\d\"", "'a\\b' \"it's\"", "--opt='x y' k=v", "'a|b' \"c;d\" e\\&f",
        "sh -c 'exit 3'", "a \\\n b\\\nc \"d\\\ne\"", "a#b 'tab\tin'"}) {
    INFO(text);
    const absl::StatusOr<Words> words = SplitWords(text);
    REQUIRE(words.ok());
    std::string lines;
    for (const std::string& word : *words) lines += word + "\n";
    CHECK(lines == ShellWords(text));
  }
  CHECK(*SplitWords("a\nb") == Words{"a", "b"});
  CHECK(*SplitWords("x $HOME \"$HOME\" * ~") == Words{"x", "$HOME", "$HOME", "*", "~"});
}

TEST_CASE("command words: what cannot be run is an error that says why") {
  CHECK_THAT(ErrorOf(""), HasText("there is no command"));
  CHECK_THAT(ErrorOf(" \t "), HasText("there is no command"));
  CHECK_THAT(ErrorOf("a 'b"), HasText("a ' is not closed"));
  CHECK_THAT(ErrorOf("a \"b\\\""), HasText("a \" is not closed"));
  CHECK_THAT(ErrorOf("a \\"), HasText("behind the backslash"));
  CHECK_THAT(ErrorOf(std::string_view("a\0b", 3)), HasText("NUL"));
  for (const char* text : {"a | b", "a && b", "a; b", "a > f", "a < f", "(a)", "a `b`", "a $(b)"}) {
    INFO(text);
    CHECK_THAT(ErrorOf(text), HasText("without a shell") && HasText("sh -c '...'"));
  }
}

}  // namespace
}  // namespace echofs::cmd
