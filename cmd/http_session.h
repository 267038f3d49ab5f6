// One connection of the HTTP server. Of http_server.cc and http_session.cc alone, since it needs Beast's headers.
#pragma once

#include <array>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <memory>
#include <optional>
#include <string>

#include "cmd/http_server.h"

namespace echofs::cmd {

// What the connections of a server share; outlives them.
struct HttpShared {
  HttpServerOptions options;
  HttpMetrics metrics;
  HttpHandler* handler = nullptr;
  boost::asio::thread_pool workers{kHttpWorkers};
};

// Runs on the network's thread; keeps itself alive while something is under way.
class HttpSession : public std::enable_shared_from_this<HttpSession> {
 public:
  HttpSession(boost::asio::ip::tcp::socket socket, HttpShared* shared);
  ~HttpSession();
  void ReadRequest();

 private:
  using Error = boost::system::error_code;

  void OnRequest(const Error& error);
  // Calls `work` on a worker, and then `done` with its value here.
  template <class Work, class Done>
  void RunOnWorker(Work work, Done done);
  void Respond(HttpResponse response);
  // Answers, and ends the connection: what follows in the request is not understood.
  void Refuse(HttpResponse response);
  void Send(boost::beast::http::response<boost::beast::http::string_body> response);
  // Ends the connection without a reset that could take the answer away from the client.
  void Linger();
  void Discard();

  void StartStream(std::unique_ptr<HttpStream> stream, const std::string& content_type);
  void WatchPeer();
  void NextPiece();
  void OnPiece(std::optional<std::string> piece);
  void SendPiece(std::string bytes, bool last);
  void Close();

  HttpShared* const shared_;
  boost::beast::tcp_stream stream_;
  boost::beast::flat_buffer buffer_;
  std::optional<boost::beast::http::request_parser<boost::beast::http::empty_body>> parser_;
  unsigned version_ = 11;
  bool head_ = false;
  bool keep_alive_ = false;

  std::unique_ptr<HttpStream> body_;  // of the answer; a worker has it while it is asked
  bool streaming_ = false;
  boost::asio::steady_timer timer_;
  std::array<char, 1024> discarded_{};  // what the client sends and nobody wants
  std::size_t discarded_bytes_ = 0;
};

}  // namespace echofs::cmd
