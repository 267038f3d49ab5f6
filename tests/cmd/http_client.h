// The client's end of a connection, byte for byte, for the tests of the HTTP server.
#pragma once

#include <string>

namespace echofs::cmd::test {

// Not thread-safe. Every wait has an end.
class HttpClient {
 public:
  // To a server on 127.0.0.1 at the port of `address`. `receive_buffer`: bytes that the kernel keeps, 0: as usual.
  explicit HttpClient(const std::string& address, int receive_buffer = 0);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // False when the server is gone.
  bool Send(const std::string& bytes);
  // Reads until `end` has come; returns all that was read since the last call, less when the connection ended.
  std::string ReadUntil(const std::string& end);
  // One answer with a Content-Length.
  std::string ReadAnswer();
  // Reads until the server ends the connection.
  std::string ReadAll();

 private:
  bool Receive();

  int fd_ = -1;
  std::string received_;
};

// What the server says to these bytes until it ends the connection.
std::string Ask(const std::string& address, const std::string& bytes);

}  // namespace echofs::cmd::test
