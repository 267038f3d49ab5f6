// The FUSE callbacks about open files and their content; of mount_operations.cc alone.
#pragma once

#include "fs/mount_operations.h"

namespace echofs::fs {

// Puts them into the table.
void SetFileOperations(fuse_lowlevel_ops* table);

}  // namespace echofs::fs
