#include "cmd/http_server.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "cmd/config_values.h"
#include "cmd/http_session.h"
#include "replication/listen_check.h"
#include "replication/status_macros.h"

namespace echofs::cmd {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using Error = boost::system::error_code;

// After an error of accept, such as too many open files.
constexpr std::chrono::milliseconds kAcceptRetry{100};

constexpr std::string_view kTooMany =
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 35\r\n"
    "Connection: close\r\n\r\n{\"error\":\"too many connections\"}\r\n";

absl::Status CannotListen(const std::string& address, const std::string& why) {
  return absl::FailedPreconditionError(fmt::format(
      "cannot listen on {}: {}. Each node on a machine needs its own http.listen (--http-listen); "
      "'off' does without",
      address, why));
}

}  // namespace

struct HttpServer::State {
  HttpShared shared;
  asio::io_context io{1};
  tcp::acceptor acceptor{io};
  asio::steady_timer retry{io};
  std::string address;
  std::thread thread;

  absl::Status Listen(const std::string& wanted);
  void Accept();
  void Take(tcp::socket socket);
};

absl::Status HttpServer::State::Listen(const std::string& wanted) {
  ECHOFS_ASSIGN_OR_RETURN(HostPort parsed, ParseHostPort(wanted, 0));
  if (const std::string why = WhyNotListening(wanted, "http.listen"); !why.empty()) {
    return CannotListen(wanted, why);
  }
  std::string host = parsed.host;
  if (host.front() == '[') host = host.substr(1, host.size() - 2);
  Error error;
  const auto found =
      tcp::resolver(io).resolve(host, std::to_string(parsed.port), tcp::resolver::passive, error);
  if (error || found.empty()) return CannotListen(wanted, error.message());
  const tcp::endpoint endpoint = found.begin()->endpoint();
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (!error) parsed.port = acceptor.local_endpoint(error).port();
  if (error) return CannotListen(wanted, error.message());
  address = parsed.ToString();
  return absl::OkStatus();
}

void HttpServer::State::Accept() {
  acceptor.async_accept([this](const Error& error, tcp::socket socket) {
    if (!error) {
      Take(std::move(socket));
      return Accept();
    }
    retry.expires_after(kAcceptRetry);
    retry.async_wait([this](const Error& cancelled) {
      if (!cancelled) Accept();
    });
  });
}

void HttpServer::State::Take(tcp::socket socket) {
  if (shared.metrics.connections < shared.options.connections_max) {
    return std::make_shared<HttpSession>(std::move(socket), &shared)->ReadRequest();
  }
  shared.metrics.connections_refused.Add();
  Error ignored;
  socket.non_blocking(true, ignored);
  socket.write_some(asio::buffer(kTooMany), ignored);
}

HttpResponse HttpError(unsigned status, const std::string& message) {
  const nlohmann::json json = {{"error", message}};
  HttpResponse response;
  response.status = status;
  response.body = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  return response;
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Listen(const std::string& address,
                                                               const HttpServerOptions& options) {
  auto state = std::make_unique<State>();
  state->shared.options = options;
  ECHOFS_RETURN_IF_ERROR(state->Listen(address));
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(state)));
}

HttpServer::HttpServer(std::unique_ptr<State> state) : state_(std::move(state)) {}

HttpServer::~HttpServer() {
  state_->io.stop();
  if (state_->thread.joinable()) state_->thread.join();
  state_->shared.workers.join();
}

void HttpServer::Serve(HttpHandler* handler) {
  state_->shared.handler = handler;
  state_->Accept();
  state_->thread = std::thread([this] { state_->io.run(); });
}

const std::string& HttpServer::address() const { return state_->address; }
const HttpMetrics& HttpServer::metrics() const { return state_->shared.metrics; }

}  // namespace echofs::cmd
