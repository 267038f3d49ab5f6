#include "replication/token_file.h"

#include <sys/stat.h>

#include <fstream>
#include <functional>
#include <string>

#include "absl/time/clock.h"
#include "tests/catch.h"
#include "tests/replication/temp_directory.h"

namespace echofs {
namespace {

const std::string kOne(64, 'a');
const std::string kTwo(32, 'b');

class TokenFileTest {
 public:
  void Write(const std::string& text, mode_t mode = 0600) {
    // A new file, as a person should do it: nobody sees half of it.
    std::ofstream(path_ + ".new") << text;
    REQUIRE(::chmod((path_ + ".new").c_str(), mode) == 0);
    REQUIRE(::rename((path_ + ".new").c_str(), path_.c_str()) == 0);
  }
  std::string Error() {
    const absl::StatusOr<std::unique_ptr<TokenFile>> file = TokenFile::Open(path_);
    REQUIRE_FALSE(file.ok());
    return std::string(file.status().message());
  }

 protected:
  TempDirectory directory_;
  const std::string path_ = directory_ / "token";
};

void WaitFor(const std::function<bool()>& condition) {
  const absl::Time end = absl::Now() + absl::Minutes(2);
  while (!condition()) {
    REQUIRE(absl::Now() < end);
    absl::SleepFor(absl::Milliseconds(10));
  }
}

}  // namespace

TEST_CASE_METHOD(TokenFileTest, "token file: the first token is sent, all are accepted") {
  Write(kOne + "\r\n\n" + kTwo + "\n");
  const auto file = *TokenFile::Open(path_);
  CHECK(file->ToSend() == kOne);
  CHECK(file->Accepts(kOne));
  CHECK(file->Accepts(kTwo));
  for (const std::string& wrong :
       {std::string(), kOne + "a", kOne.substr(1), std::string(64, 'c'), kOne + "\n"}) {
    INFO(wrong);
    CHECK_FALSE(file->Accepts(wrong));
  }
}

TEST_CASE_METHOD(TokenFileTest, "token file: a new content is taken, a bad one is not") {
  Write(kOne);
  const auto file = *TokenFile::Open(path_);
  Write(kTwo);
  WaitFor([&] { return file->Accepts(kTwo); });
  CHECK_FALSE(file->Accepts(kOne));
  CHECK(file->ToSend() == kTwo);

  Write("short\n");
  WaitFor([&] { return !file->last_error().empty(); });
  CHECK(file->Accepts(kTwo));
  Write(kOne);
  WaitFor([&] { return file->Accepts(kOne); });
  CHECK(file->last_error().empty());
}

TEST_CASE_METHOD(TokenFileTest, "token file: what cannot be a token, or is no secret, is refused") {
  CHECK(Error().find("No such file") != std::string::npos);
  for (const std::string& text :
       {std::string(15, 'x'), std::string(257, 'x'), std::string(20, 'x') + " y",
        std::string(20, '\xff'), std::string(20, '\0'), std::string(9 * 21, 'x')}) {
    INFO(text);
    Write(text);
    if (text.size() == 9 * 21) {
      std::string lines;
      for (int i = 0; i < 9; ++i) lines += std::string(20, 'x') + "\n";
      Write(lines);
    }
    CHECK(Error().find("openssl rand -hex 32") != std::string::npos);
  }
  Write("\n");
  CHECK(Error().find("is empty") != std::string::npos);
  Write(std::string((1 << 20) + 1, 'x'));
  CHECK(Error().find("larger than") != std::string::npos);
  for (const mode_t mode : {0644, 0604, 0602, 0620}) {
    Write(kOne, mode);
    CHECK(Error().find("chmod 600") != std::string::npos);
  }
  Write(kOne, 0640);
  CHECK(TokenFile::Open(path_).ok());
  REQUIRE(::unlink(path_.c_str()) == 0);
  REQUIRE(::mkfifo(path_.c_str(), 0600) == 0);
  CHECK(Error().find("no regular file") != std::string::npos);
}

}  // namespace echofs
