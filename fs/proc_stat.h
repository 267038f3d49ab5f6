// Fields of /proc/PID/stat (proc(5)).
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

namespace echofs::fs {

// The text of /proc/ID/stat, ID being a process or a thread; empty when there is none, or it cannot be read.
std::string ReadProcStat(pid_t id);

// The name of the program, or of the thread.
std::string_view ProcName(std::string_view stat);

// Field `number` of such a text, counted from 1 as in proc(5), of those behind the name (3 or more). Empty when the text
// is not understood.
std::string_view ProcStatField(std::string_view stat, int number);

}  // namespace echofs::fs
