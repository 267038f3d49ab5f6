// The DatabaseTools service (proto/echofs/v1/tools.proto) of a running node.
#pragma once

#include <memory>

#include "cmd/tools_source.h"

namespace grpc {
class Service;
}

namespace echofs::cmd {

// To be registered at a server that ends before `source`, which is not owned.
std::unique_ptr<grpc::Service> MakeToolsService(ToolsSource* source);

}  // namespace echofs::cmd
