#include <cstdio>

#include "cmd/version.h"

int main() {
  std::printf("echofs %s\n", echofs::cmd::Version());
  return 0;
}
