#include "cmd/progress.h"

#include <cstdio>

#include "tests/catch.h"
#include "tests/cmd/test_util.h"

namespace echofs::cmd {
namespace {

using test::HasText;
using test::ReadFile;
using test::TempDir;
using test::WaitFor;

struct Output {
  TempDir dir;
  const std::string path = dir.path() + "/output";
  std::FILE* const stream = std::fopen(path.c_str(), "w");

  ~Output() { std::fclose(stream); }
  std::string text() const { return ReadFile(path); }
  bool WaitText(const std::string& part) const {
    return WaitFor([&] { return text().find(part) != std::string::npos; });
  }
  ProgressOptions Options(bool terminal) const {
    return {.stream = stream,
            .terminal = terminal,
            .first_after = absl::Milliseconds(1),
            .bar_interval = absl::Milliseconds(1),
            .line_interval = absl::Milliseconds(1)};
  }
};

TEST_CASE("progress: a bar on a terminal, which is taken away at the end") {
  const Output output;
  {
    Progress progress("copying x.db", output.Options(true));
    progress.Set(1 << 20, 4 << 20);
    REQUIRE(output.WaitText("copying x.db [#######"));
    CHECK_THAT(output.text(), HasText("25% (1.0 MiB of 4.0 MiB)"));
    CHECK(output.text().find('\n') == std::string::npos);
  }
  const std::string erase = "\r\x1b[K";
  CHECK(output.text().substr(output.text().size() - erase.size()) == erase);
}

TEST_CASE("progress: plain lines where nobody looks at a terminal") {
  const Output output;
  Progress progress("checking x.db", output.Options(false));
  REQUIRE(output.WaitText("checking x.db: 0 s\n"));
  progress.Begin("copying x.db");
  progress.Set(512, 1024);
  REQUIRE(output.WaitText("copying x.db: 50% (512 B of 1.0 KiB)\n"));
  CHECK(output.text().find('\r') == std::string::npos);
}

TEST_CASE("progress: what is quick says nothing") {
  const Output output;
  {
    ProgressOptions options = output.Options(true);
    options.first_after = absl::Hours(1);
    Progress progress("copying x.db", options);
    progress.Set(5, 10);
  }
  CHECK(output.text().empty());
}

}  // namespace
}  // namespace echofs::cmd
