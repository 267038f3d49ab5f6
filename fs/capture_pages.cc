#include "fs/capture_pages.h"

#include <sys/stat.h>

namespace echofs::fs {

FileAttributes AttributesOf(const File& file) {
  struct stat st;
  FileAttributes attributes;
  if (file.Descriptor() >= 0 && fstat(file.Descriptor(), &st) == 0) {
    attributes.mode = st.st_mode & 07777;
    attributes.uid = st.st_uid;
    attributes.gid = st.st_gid;
  }
  return attributes;
}

}  // namespace echofs::fs
