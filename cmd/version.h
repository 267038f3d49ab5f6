#pragma once

namespace echofs::cmd {

// Version of this program, as "1.2.3".
const char* Version();

}  // namespace echofs::cmd
