#include "cmd/http_session.h"

#include <boost/asio/buffer.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/socket_base.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/error.hpp>
#include <chrono>
#include <utility>

#include "cmd/version.h"

namespace echofs::cmd {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;

// What the kernel keeps of a stream whose reader is slow.
constexpr int kSendBufferSize = 256 << 10;  // bytes
// Read and thrown away of a request that was refused.
constexpr std::size_t kDiscardedMax = 256 << 10;  // bytes
constexpr std::chrono::seconds kLingerMax{2};

std::chrono::milliseconds Chrono(absl::Duration duration) {
  return std::chrono::milliseconds(absl::ToInt64Milliseconds(duration));
}

template <class Response>
void SetFields(const std::string& content_type, Response* response) {
  response->set(http::field::server, std::string("echofs/") + Version());
  response->set(http::field::content_type, content_type);
  response->set(http::field::cache_control, "no-store");
}

}  // namespace

HttpSession::HttpSession(asio::ip::tcp::socket socket, HttpShared* shared)
    : shared_(shared),
      stream_(std::move(socket)),
      buffer_(2 * kHttpHeaderSizeMax),
      timer_(stream_.get_executor()) {
  ++shared_->metrics.connections;
  Error ignored;
  stream_.socket().set_option(asio::ip::tcp::no_delay(true), ignored);
  stream_.socket().set_option(asio::socket_base::send_buffer_size(kSendBufferSize), ignored);
}

HttpSession::~HttpSession() {
  --shared_->metrics.connections;
  if (streaming_) --shared_->metrics.streams;
}

void HttpSession::ReadRequest() {
  parser_.emplace();
  parser_->header_limit(kHttpHeaderSizeMax);
  stream_.expires_after(Chrono(shared_->options.read_timeout));
  http::async_read_header(
      stream_, buffer_, *parser_,
      [self = shared_from_this()](const Error& error, std::size_t) { self->OnRequest(error); });
}

void HttpSession::OnRequest(const Error& error) {
  if (error == http::error::end_of_stream) return Linger();
  if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    return Refuse(HttpError(431, "the request's header is too large"));
  }
  if (error && error.category() != http::make_error_code(http::error::bad_method).category()) {
    return Close();  // the network's: gone, or too slow
  }
  if (error == http::error::partial_message) return Close();
  if (error) return Refuse(HttpError(400, "this is no HTTP request"));

  const auto& message = parser_->get();
  version_ = message.version();
  head_ = message.method() == http::verb::head;
  keep_alive_ = message.keep_alive();
  if (message.method() != http::verb::get && !head_) {
    return Refuse(HttpError(405, "only GET and HEAD are answered"));
  }
  if (!parser_->is_done()) return Refuse(HttpError(413, "requests have no body here"));
  const std::string target(message.target());
  const std::optional<HttpRequest> request = ParseHttpTarget(target);
  if (!request) return Refuse(HttpError(400, "the request names no path"));
  stream_.expires_never();
  if (std::optional<HttpResponse> response = shared_->handler->AnswerAtOnce(*request)) {
    return Respond(*std::move(response));
  }
  RunOnWorker([shared = shared_, request = *request] { return shared->handler->Answer(request); },
              [this](HttpResponse response) { Respond(std::move(response)); });
}

template <class Work, class Done>
void HttpSession::RunOnWorker(Work work, Done done) {
  asio::post(shared_->workers, [self = shared_from_this(), work, done]() mutable {
    auto value = std::make_shared<decltype(work())>(work());
    HttpSession* const session = self.get();
    // The last reference is never given up here: streams end on the network's thread.
    asio::post(session->stream_.get_executor(),
               [self = std::move(self), value, done] { done(std::move(*value)); });
  });
}

void HttpSession::Respond(HttpResponse response) {
  if (response.stream != nullptr) {
    if (shared_->metrics.streams < shared_->options.streams_max) {
      return StartStream(std::move(response.stream), response.content_type);
    }
    response = HttpError(503, "there are too many event streams already");
  }
  http::response<http::string_body> message(http::status(response.status), version_);
  SetFields(response.content_type, &message);
  if (response.status == 405) message.set(http::field::allow, "GET, HEAD");
  message.keep_alive(keep_alive_);
  message.content_length(response.body.size());
  if (!head_) message.body() = std::move(response.body);
  Send(std::move(message));
}

void HttpSession::Refuse(HttpResponse response) {
  keep_alive_ = false;
  Respond(std::move(response));
}

void HttpSession::Send(http::response<http::string_body> response) {
  shared_->metrics.requests.Add();
  if (response.result_int() >= 400) shared_->metrics.errors.Add();
  stream_.expires_after(Chrono(shared_->options.write_timeout));
  auto message = std::make_shared<http::response<http::string_body>>(std::move(response));
  auto serializer = std::make_shared<http::response_serializer<http::string_body>>(*message);
  const auto done = [self = shared_from_this(), message, serializer](const Error& error,
                                                                     std::size_t) {
    if (error) return self->Close();
    self->keep_alive_ ? self->ReadRequest() : self->Linger();
  };
  // The length in the answer to HEAD is that of a body which is not there.
  if (head_) return http::async_write_header(stream_, *serializer, done);
  http::async_write(stream_, *serializer, done);
}

void HttpSession::Linger() {
  Error ignored;
  stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  stream_.expires_after(kLingerMax);
  Discard();
}

void HttpSession::Discard() {
  stream_.async_read_some(asio::buffer(discarded_),
                          [self = shared_from_this()](const Error& error, std::size_t n) {
                            self->discarded_bytes_ += n;
                            if (error || self->discarded_bytes_ > kDiscardedMax)
                              return self->Close();
                            self->Discard();
                          });
}

void HttpSession::StartStream(std::unique_ptr<HttpStream> stream, const std::string& content_type) {
  shared_->metrics.requests.Add();
  ++shared_->metrics.streams;
  streaming_ = true;
  body_ = std::move(stream);
  keep_alive_ = false;
  auto message = std::make_shared<http::response<http::empty_body>>(http::status::ok, version_);
  SetFields(content_type, message.get());
  message->keep_alive(false);
  if (version_ >= 11) message->chunked(true);
  auto serializer = std::make_shared<http::response_serializer<http::empty_body>>(*message);
  stream_.expires_after(Chrono(shared_->options.write_timeout));
  http::async_write_header(
      stream_, *serializer,
      [self = shared_from_this(), message, serializer](const Error& error, std::size_t) {
        if (error) return self->Close();
        if (self->head_) return self->Linger();
        self->WatchPeer();
        self->NextPiece();
      });
}

// Notices a client that goes away while there is nothing to send.
void HttpSession::WatchPeer() {
  stream_.socket().async_read_some(asio::buffer(discarded_),
                                   [self = shared_from_this()](const Error& error, std::size_t) {
                                     error ? self->Close() : self->WatchPeer();
                                   });
}

void HttpSession::NextPiece() {
  if (!stream_.socket().is_open()) return;
  RunOnWorker([body = body_.get()] { return body->Next(); },
              [this](std::optional<std::string> piece) { OnPiece(std::move(piece)); });
}

void HttpSession::OnPiece(std::optional<std::string> piece) {
  if (!stream_.socket().is_open()) return;
  const bool chunked = version_ >= 11;
  if (!piece) return SendPiece(chunked ? "0\r\n\r\n" : "", true);
  if (piece->empty()) {
    timer_.expires_after(Chrono(shared_->options.stream_interval));
    timer_.async_wait([self = shared_from_this()](const Error& error) {
      if (!error) self->NextPiece();
    });
    return;
  }
  SendPiece(*std::move(piece), false);
}

void HttpSession::SendPiece(std::string bytes, bool last) {
  stream_.expires_after(Chrono(shared_->options.write_timeout));
  const auto done = [self = shared_from_this(), last](const Error& error) {
    if (error == beast::error::timeout) self->shared_->metrics.slow_readers.Add();
    if (error) return self->Close();
    self->stream_.expires_never();
    last ? self->Close() : self->NextPiece();
  };
  const auto piece = std::make_shared<std::string>(std::move(bytes));
  const auto written = [done, piece](const Error& error, std::size_t) { done(error); };
  if (last || version_ < 11) return asio::async_write(stream_, asio::buffer(*piece), written);
  asio::async_write(stream_, http::make_chunk(asio::buffer(*piece)), written);
}

void HttpSession::Close() {
  Error ignored;
  timer_.cancel();
  stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_both, ignored);
  stream_.close();
}

}  // namespace echofs::cmd
