// The log of a node: spdlog's default logger, to stderr, one line an event.
//
//     text   2024-05-01T12:00:00.123Z warn  what happened
//     json   {"time":"2024-05-01T12:00:00.123Z","level":"warn","message":"what happened"}
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "cmd/config.h"

namespace echofs::cmd {

// Sets up the default logger of the process. `log.level` has been checked. Starts no thread, so a
// later fork is safe.
void SetUpLogging(const Config::Log& log);

// One line of the log without its newline; line breaks in the message are escaped.
// `time_ms` since 1970.
std::string FormatLogLine(LogFormat format, std::int64_t time_ms, std::string_view level,
                          std::string_view message);

}  // namespace echofs::cmd
