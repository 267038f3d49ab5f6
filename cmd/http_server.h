// A small HTTP/1.1 server for what a node tells about itself (design section 11): only GET and HEAD, without bodies in
// requests, bounded in everything. It trusts nobody: what a client sends costs at most kHttpHeaderSizeMax of memory and
// HttpServerOptions::read_timeout of a connection.
//
// Threads: one for the network, which never waits for anything else; kHttpWorkers for the answers, which may wait for
// locks and disks of the node. No thread of the node's own work is ever in here.
#pragma once

#include <atomic>
#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "replication/metrics.h"

namespace echofs::cmd {

inline constexpr std::size_t kHttpHeaderSizeMax = 8 << 10;  // bytes of a request
inline constexpr int kHttpWorkers = 2;

// The body of an answer whose end is not known. One thread at a time.
class HttpStream {
 public:
  virtual ~HttpStream() = default;
  // The next piece, at most some 64 KiB; empty when there is nothing at the moment: asked again after a short
  // while; nothing at the end.
  virtual std::optional<std::string> Next() = 0;
};

struct HttpRequest {
  std::string path;  // decoded, without the query
  std::map<std::string, std::string> query;
};

struct HttpResponse {
  unsigned status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::unique_ptr<HttpStream> stream;  // in the place of `body`
};

// {"error": message}.
HttpResponse HttpError(unsigned status, const std::string& message);

// Thread-safe.
class HttpHandler {
 public:
  virtual ~HttpHandler() = default;
  // On the network's thread: an answer that needs no waiting, or nothing.
  virtual std::optional<HttpResponse> AnswerAtOnce(const HttpRequest& request) = 0;
  // On a worker: the answer to any other request.
  virtual HttpResponse Answer(const HttpRequest& request) = 0;
};

struct HttpServerOptions {
  int connections_max = 64;
  int streams_max = 16;
  absl::Duration read_timeout = absl::Seconds(30);   // for a whole request, and between two
  absl::Duration write_timeout = absl::Seconds(10);  // for an answer, or a piece of a stream
  absl::Duration stream_interval =
      absl::Milliseconds(20);  // after which an empty stream is asked again
};

struct HttpMetrics {
  Counter requests;
  Counter errors;               // answers with a status of 400 or above
  Counter connections_refused;  // beyond connections_max
  Counter slow_readers;         // streams that were cut off because their reader did not take them
  std::atomic<int> connections{0};
  std::atomic<int> streams{0};
};

class HttpServer {
 public:
  // Listens on host:port; port 0: any. Nothing is answered before Serve. FailedPrecondition says in words for people
  // why it cannot.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Listen(const std::string& address,
                                                            const HttpServerOptions& options);
  // Ends all connections, in the middle of an answer too, and waits for the workers.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // Once. Does not own the handler, which outlives the server. Starts threads.
  void Serve(HttpHandler* handler);
  // host:port with the real port.
  const std::string& address() const;
  const HttpMetrics& metrics() const;

 private:
  struct State;
  explicit HttpServer(std::unique_ptr<State> state);
  const std::unique_ptr<State> state_;
};

// Splits the target of a request ("/a?b=c&d") and decodes its parts; nothing when it is none. Of a key that is there
// twice the first one counts.
std::optional<HttpRequest> ParseHttpTarget(std::string_view target);

}  // namespace echofs::cmd
