// Why an address cannot be listened on, in words: gRPC does not say.
#pragma once

#include <string>

namespace echofs {

// Empty when it can. `setting`: what a person corrects, such as "grpc.listen". The address is free again when this
// returns.
std::string WhyNotListening(const std::string& address, const std::string& setting);

}  // namespace echofs
