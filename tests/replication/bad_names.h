// Names that no database may have, wherever they come from.
#pragma once

#include <map>
#include <string>

namespace echofs {

// By what is wrong with them. All can be encoded in a record's header.
inline std::map<std::string, std::string> BadDatabaseNames() {
  return {{"leaves the directory", "../x.db"},
          {"leaves the directory on the way", "a/../../x.db"},
          {"absolute", "/etc/x.db"},
          {"the directory itself", "."},
          {"empty component", "a//x.db"},
          {"empty", ""},
          {"ends in a slash", "a/"},
          {"NUL", std::string("x.db\0y", 6)},
          {"journal of another", "x.db-journal"},
          {"WAL of another", "x.db-wal"},
          {"wal-index of another", "x.db-shm"},
          {"position of another", "x.db-pos"},
          {"control file", ".primary"},
          {"below a control file", ".lag/x.db"},
          {"component too long", std::string(256, 'x')}};
}

}  // namespace echofs
