#include "cmd/http_server.h"

#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "tests/cmd/http_client.h"
#include "tests/cmd/test_util.h"

namespace echofs::cmd {
namespace {

using test::Ask;
using test::HasText;
using test::HttpClient;
using test::WaitFor;

const std::string kGet = "GET /at-once HTTP/1.1\r\nHost: x\r\n\r\n";
const std::string kGetAndClose = "GET /at-once HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

// Gives a piece of this size again and again.
class Pieces final : public HttpStream {
 public:
  Pieces(std::size_t size, int count) : size_(size), count_(count) {}
  std::optional<std::string> Next() override {
    if (count_-- == 0) return std::nullopt;
    return std::string(size_, 'x');
  }

 private:
  const std::size_t size_;
  int count_;  // negative: without an end
};

class Handler final : public HttpHandler {
 public:
  std::optional<HttpResponse> AnswerAtOnce(const HttpRequest& request) override {
    if (request.path != "/at-once") return std::nullopt;
    HttpResponse response;
    response.body = "at once";
    return response;
  }
  HttpResponse Answer(const HttpRequest& request) override {
    HttpResponse response;
    if (request.path == "/wait") wait.WaitForNotification();
    if (request.path == "/two") response.stream = std::make_unique<Pieces>(5, 2);
    if (request.path == "/quiet") response.stream = std::make_unique<Pieces>(0, -1);
    if (request.path == "/endless") response.stream = std::make_unique<Pieces>(32 << 10, -1);
    response.body = request.path;
    for (const auto& [key, value] : request.query) response.body += " " + key + "=" + value;
    return response;
  }
  absl::Notification wait;
};

struct Fixture {
  explicit Fixture(const HttpServerOptions& options = {}) {
    auto listening = HttpServer::Listen("127.0.0.1:0", options);
    INFO(listening.status());
    REQUIRE(listening.ok());
    server = *std::move(listening);
    server->Serve(&handler);
  }
  const std::string& address() const { return server->address(); }

  Handler handler;
  std::unique_ptr<HttpServer> server;
};

TEST_CASE("http: a connection is used for several requests, HEAD has the length and no body") {
  const Fixture f;
  HttpClient client(f.address());
  client.Send(kGet);
  CHECK_THAT(client.ReadAnswer(), HasText("HTTP/1.1 200 OK") && HasText("\r\n\r\nat once"));
  client.Send("HEAD /at-once HTTP/1.1\r\nHost: x\r\n\r\n");
  const std::string head = client.ReadUntil("\r\n\r\n");
  CHECK_THAT(head, HasText("200 OK") && HasText("Content-Length: 7"));
  client.Send("GET /a%20b?c=d%26&e HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK_THAT(client.ReadAnswer(), HasText("\r\n\r\n/a b c=d& e="));
  client.Send(kGet + kGet);  // at one time
  CHECK_THAT(client.ReadAnswer(), HasText("at once"));
  CHECK_THAT(client.ReadAnswer(), HasText("at once"));
  CHECK(f.server->metrics().requests.value() == 5);
  CHECK(f.server->metrics().errors.value() == 0);
}

TEST_CASE("http: what is no request gets 400, and the server goes on") {
  const Fixture f;
  for (const std::string bytes :
       {"hello\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\1\2\3\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n", "GET nothing HTTP/1.1\r\n\r\n",
        "GET /%zz HTTP/1.1\r\n\r\n", "GET /?a=%4 HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n"}) {
    INFO(bytes);
    CHECK_THAT(Ask(f.address(), bytes), HasText("HTTP/1.1 400 ") && HasText("\"error\""));
  }
  // Cut off in the middle.
  { HttpClient(f.address()).Send("GET /at-once HT"); }
  CHECK_THAT(Ask(f.address(), kGetAndClose), HasText("at once"));
}

TEST_CASE("http: random bytes neither end the server nor keep a connection") {
  const Fixture f;
  std::mt19937 random(7);  // NOLINT: the same bytes each time
  for (int i = 0; i < 200; ++i) {
    std::string bytes(random() % 300, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random());
    if (i % 2 == 0) bytes.insert(0, kGet.substr(0, random() % kGet.size()));
    HttpClient(f.address()).Send(bytes);
  }
  CHECK_THAT(Ask(f.address(), kGetAndClose), HasText("at once"));
  CHECK(WaitFor([&] { return f.server->metrics().connections == 0; }));
}

TEST_CASE("http: a header that is too large gets 431") {
  const Fixture f;
  for (const std::size_t size : {kHttpHeaderSizeMax, 40 * kHttpHeaderSizeMax}) {
    const std::string large(size, 'x');
    CHECK_THAT(Ask(f.address(), "GET /" + large + " HTTP/1.1\r\n\r\n"), HasText(" 431 "));
    CHECK_THAT(Ask(f.address(), "GET / HTTP/1.1\r\nA: " + large + "\r\n\r\n"), HasText(" 431 "));
  }
}

TEST_CASE("http: other methods get 405, a request with a body gets 413") {
  const Fixture f;
  for (const std::string method : {"POST", "PUT", "DELETE", "OPTIONS", "BREW"}) {
    CHECK_THAT(Ask(f.address(), method + " /at-once HTTP/1.1\r\nHost: x\r\n\r\n"),
               HasText(" 405 ") && HasText("Allow: GET, HEAD"));
  }
  const std::string body(100'000, 'x');
  CHECK_THAT(Ask(f.address(), "POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + body),
             HasText(" 405 "));
  CHECK_THAT(Ask(f.address(), "GET / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + body),
             HasText(" 413 "));
  CHECK_THAT(Ask(f.address(), "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"),
             HasText(" 413 "));
}

TEST_CASE("http: a client that says nothing is left, and one too many is refused") {
  HttpServerOptions options;
  options.connections_max = 3;
  options.read_timeout = absl::Seconds(2);
  const Fixture f(options);
  std::vector<std::unique_ptr<HttpClient>> silent;
  for (int i = 0; i < 3; ++i) silent.push_back(std::make_unique<HttpClient>(f.address()));
  silent[0]->Send("GET /at-once HTTP/1.1\r\nHost:");
  REQUIRE(WaitFor([&] {
    return Ask(f.address(), "").find(" 503 ") != std::string::npos ||
           f.server->metrics().connections_refused.value() > 0;
  }));
  for (const auto& client : silent) CHECK(client->ReadAll().empty());
  CHECK_THAT(Ask(f.address(), kGetAndClose), HasText("at once"));
}

TEST_CASE("http: answers that wait keep nobody from what needs no waiting") {
  Fixture f;
  std::vector<std::unique_ptr<HttpClient>> waiting;
  for (int i = 0; i < 2 * kHttpWorkers; ++i) {
    waiting.push_back(std::make_unique<HttpClient>(f.address()));
    waiting.back()->Send("GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
  }
  CHECK_THAT(Ask(f.address(), kGetAndClose), HasText("at once"));
  f.handler.wait.Notify();
  for (const auto& client : waiting) CHECK_THAT(client->ReadAnswer(), HasText("/wait"));
}

TEST_CASE("http: a stream comes in chunks, to HTTP/1.0 as it is") {
  const Fixture f;
  CHECK_THAT(Ask(f.address(), "GET /two HTTP/1.1\r\nHost: x\r\n\r\n"),
             HasText("Transfer-Encoding: chunked") &&
                 HasText("\r\n\r\n5\r\nxxxxx\r\n5\r\nxxxxx\r\n0\r\n\r\n"));
  const std::string plain = Ask(f.address(), "GET /two HTTP/1.0\r\n\r\n");
  CHECK(plain.substr(plain.find("\r\n\r\n")) == "\r\n\r\nxxxxxxxxxx");
  const std::string head = Ask(f.address(), "HEAD /two HTTP/1.1\r\nHost: x\r\n\r\n");
  CHECK(head.substr(head.find("\r\n\r\n")) == "\r\n\r\n");
  CHECK(WaitFor([&] { return f.server->metrics().streams == 0; }));
}

TEST_CASE("http: a reader of a stream that does not take it is cut off, others are not") {
  HttpServerOptions options;
  options.write_timeout = absl::Milliseconds(500);
  const Fixture f(options);
  HttpClient slow(f.address(), 4096);
  slow.Send("GET /endless HTTP/1.1\r\nHost: x\r\n\r\n");
  HttpClient quick(f.address());
  quick.Send("GET /endless HTTP/1.1\r\nHost: x\r\n\r\n");
  std::atomic<bool> enough = false;
  bool quick_ended = false;
  std::thread reading([&] {
    while (!enough && !quick_ended) quick_ended = quick.ReadUntil("xxxxxxxx").empty();
  });
  CHECK(WaitFor([&] { return f.server->metrics().slow_readers.value() == 1; }));
  CHECK(WaitFor([&] { return f.server->metrics().streams == 1; }));
  slow.ReadAll();  // ends
  enough = true;
  reading.join();
  CHECK_FALSE(quick_ended);
}

TEST_CASE("http: a reader that goes away is noticed while there is nothing to send") {
  HttpServerOptions options;
  options.streams_max = 1;
  const Fixture f(options);
  {
    HttpClient client(f.address());
    client.Send("GET /quiet HTTP/1.1\r\nHost: x\r\n\r\n");
    client.ReadUntil("\r\n\r\n");
    CHECK_THAT(Ask(f.address(), "GET /quiet HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
               HasText(" 503 ") && HasText("too many event streams"));
  }
  CHECK(WaitFor([&] { return f.server->metrics().streams == 0; }));
}

TEST_CASE("http: the server ends in the middle of streams and requests") {
  Fixture f;
  HttpClient quiet(f.address());
  quiet.Send("GET /quiet HTTP/1.1\r\nHost: x\r\n\r\n");
  quiet.ReadUntil("\r\n\r\n");
  HttpClient endless(f.address(), 4096);
  endless.Send("GET /endless HTTP/1.1\r\nHost: x\r\n\r\n");
  endless.ReadUntil("xx");
  HttpClient silent(f.address());
  silent.Send("GET ");
  f.server.reset();
  CHECK(quiet.ReadAll().empty());
}

TEST_CASE("http: a port that is taken, and a host that is none, are errors that say what to do") {
  const Fixture f;
  const auto taken = HttpServer::Listen(f.address(), {});
  REQUIRE_FALSE(taken.ok());
  CHECK_THAT(std::string(taken.status().message()),
             HasText("cannot listen on " + f.address()) && HasText("another process uses") &&
                 HasText("own http.listen (--http-listen)") && HasText("'off' does without"));
  const auto nowhere = HttpServer::Listen("203.0.113.1:80", {});
  REQUIRE_FALSE(nowhere.ok());
  CHECK_THAT(std::string(nowhere.status().message()), HasText("correct http.listen"));
}

}  // namespace
}  // namespace echofs::cmd
