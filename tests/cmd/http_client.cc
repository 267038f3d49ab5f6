#include "tests/cmd/http_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "replication/status_macros.h"

namespace echofs::cmd::test {
namespace {

constexpr timeval kPatience{180, 0};

}  // namespace

HttpClient::HttpClient(const std::string& address, int receive_buffer) {
  fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ECHOFS_CHECK(fd_ >= 0);
  if (receive_buffer > 0) {
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer));
  }
  ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &kPatience, sizeof(kPatience));
  ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &kPatience, sizeof(kPatience));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port =
      htons(static_cast<std::uint16_t>(std::atoi(address.substr(address.rfind(':') + 1).c_str())));
  ECHOFS_CHECK(::connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) == 0);
}

HttpClient::~HttpClient() { ::close(fd_); }

bool HttpClient::Send(const std::string& bytes) {
  std::size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t n = ::send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) return false;
    sent += static_cast<std::size_t>(n);
  }
  return true;
}

bool HttpClient::Receive() {
  char buffer[4096];
  const ssize_t n = ::recv(fd_, buffer, sizeof(buffer), 0);
  if (n <= 0) return false;
  received_.append(buffer, static_cast<std::size_t>(n));
  return true;
}

std::string HttpClient::ReadUntil(const std::string& end) {
  std::size_t at = received_.find(end);
  while (at == std::string::npos && Receive()) at = received_.find(end);
  const std::size_t size =
      at == std::string::npos ? received_.size() : std::min(at + end.size(), received_.size());
  std::string text = received_.substr(0, size);
  received_.erase(0, size);
  return text;
}

std::string HttpClient::ReadAnswer() {
  std::string answer = ReadUntil("\r\n\r\n");
  const std::string field = "Content-Length: ";
  const std::size_t at = answer.find(field);
  if (at == std::string::npos) return answer;
  const auto size = static_cast<std::size_t>(std::atoll(answer.c_str() + at + field.size()));
  while (received_.size() < size && Receive()) {
  }
  answer += received_.substr(0, size);
  received_.erase(0, std::min(size, received_.size()));
  return answer;
}

std::string HttpClient::ReadAll() {
  while (Receive()) {
  }
  std::string all;
  all.swap(received_);
  return all;
}

std::string Ask(const std::string& address, const std::string& bytes) {
  HttpClient client(address);
  client.Send(bytes);
  return client.ReadAll();
}

}  // namespace echofs::cmd::test
