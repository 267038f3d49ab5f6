// The socket between guardian and daemon: SOCK_SEQPACKET, one byte a message, answers with a text
// behind it.
//
//     daemon -> guardian   'R'  the mount is ready
//                          'U'  please unmount
//     guardian -> daemon   'u'  answer to 'U', with the error's text, empty when it went well
#pragma once

#include <string>

#include "absl/status/status.h"

namespace echofs::cmd {

inline constexpr char kLinkReady = 'R';
inline constexpr char kLinkUnmount = 'U';
inline constexpr char kLinkUnmounted = 'u';

// The next message, waiting for it; empty when the other side is gone.
std::string ReceiveLinkMessage(int fd);

// Unavailable when the other side is gone.
absl::Status SendLinkMessage(int fd, const std::string& message);

}  // namespace echofs::cmd
