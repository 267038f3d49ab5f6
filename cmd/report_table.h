#pragma once

#include <string>
#include <vector>

namespace echofs::cmd {

// Rows of cells under a heading, in columns as wide as their widest cell.
std::string ReportTable(const std::vector<std::vector<std::string>>& rows);

}  // namespace echofs::cmd
