#include "cmd/version.h"

namespace echofs::cmd {

const char* Version() { return ECHOFS_VERSION; }

}  // namespace echofs::cmd
