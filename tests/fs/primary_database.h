// Makes change sets the way a primary would, but by comparing: real SQLite writes to a plain
// database, and all pages before and after are compared.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <string>
#include <vector>

#include "replication/change_log.h"
#include "replication/log_entry.h"

namespace echofs::fs {

struct Change {
  LogEntry entry;
  std::vector<std::uint8_t> payload;  // LTX
};

class PrimaryDatabase {
 public:
  // `setup` is run first, e.g. "PRAGMA page_size=512; PRAGMA journal_mode=WAL".
  PrimaryDatabase(const std::string& path, const std::string& setup);
  ~PrimaryDatabase();
  PrimaryDatabase(const PrimaryDatabase&) = delete;
  PrimaryDatabase& operator=(const PrimaryDatabase&) = delete;

  void Exec(const std::string& sql);
  // What changed since the last capture, as one change set.
  Change Capture();
  Change Run(const std::string& sql) {
    Exec(sql);
    return Capture();
  }
  // A drop entry; what is captured next is a new database of this name.
  Change Drop();

  std::uint32_t page_size() const;
  std::uint32_t page_count() const;
  const std::vector<std::uint8_t>& image() const { return image_; }  // at the last capture
  const DatabasePosition& position() const { return position_; }

 private:
  std::vector<std::uint8_t> Serialize() const;

  sqlite3* database_ = nullptr;
  std::vector<std::uint8_t> image_;
  DatabasePosition position_;
};

// Digest of a whole database image (C8).
std::uint64_t DigestOf(const std::vector<std::uint8_t>& image, std::uint32_t page_size);

}  // namespace echofs::fs
