#include "fs/journal_reader.h"

#include <algorithm>
#include <array>

#include "replication/status_macros.h"

namespace echofs::fs {
namespace {

constexpr std::uint32_t kSuperJournalNameMax = 4096;  // bytes

// Layout at the end of the journal: ... lock page u32, name, name length u32, name checksum u32, magic.
absl::StatusOr<std::string> ReadSuperJournalName(const File& journal, std::uint64_t size) {
  if (size < 16) return std::string();
  std::array<std::uint8_t, 16> tail;
  ECHOFS_RETURN_IF_ERROR(ReadZeroFilled(journal, size - tail.size(), tail));
  const std::uint32_t length = LoadBe32(tail.data());
  const std::uint32_t checksum = LoadBe32(tail.data() + 4);
  if (!sqlite::HasJournalMagic(ByteView(tail).subspan(8)) || length == 0 ||
      length > kSuperJournalNameMax || length > size - tail.size()) {
    return std::string();
  }
  std::string name(length, '\0');
  ECHOFS_RETURN_IF_ERROR(
      ReadZeroFilled(journal, size - tail.size() - length,
                     MutableByteView(reinterpret_cast<std::uint8_t*>(name.data()), name.size())));
  std::uint32_t sum = 0;
  for (const char c : name) sum += static_cast<std::uint32_t>(static_cast<signed char>(c));
  if (sum != checksum) return std::string();
  return name;
}

}  // namespace

absl::StatusOr<bool> MayNameSuperJournal(const File& journal) {
  ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t size, journal.Size());
  std::array<std::uint8_t, 8> tail;
  if (size < tail.size()) return false;
  ECHOFS_RETURN_IF_ERROR(ReadZeroFilled(journal, size - tail.size(), tail));
  return sqlite::HasJournalMagic(tail);
}

absl::StatusOr<std::optional<JournalContent>> ReadJournal(const File& journal) {
  std::array<std::uint8_t, sqlite::kJournalHeaderSize> bytes;
  ECHOFS_ASSIGN_OR_RETURN(const std::uint64_t size, journal.Size());
  ECHOFS_ASSIGN_OR_RETURN(std::size_t n, journal.ReadAt(0, bytes));
  std::optional<sqlite::JournalHeader> header =
      sqlite::ParseJournalHeader(ByteView(bytes).first(n));
  if (!header) return std::nullopt;

  JournalContent content;
  content.page_size = header->page_size;
  content.page_count = header->page_count;
  ECHOFS_ASSIGN_OR_RETURN(content.super_journal, ReadSuperJournalName(journal, size));

  const std::uint64_t record_size = std::uint64_t{content.page_size} + 8;
  const std::uint64_t sector = header->sector_size;
  std::vector<std::uint8_t> record(record_size);
  std::uint64_t offset = 0;
  while (header && header->page_size == content.page_size) {
    offset += sector;
    const std::uint64_t room = offset < size ? (size - offset) / record_size : 0;
    const std::uint64_t records = header->record_count == sqlite::kJournalRecordsToEnd
                                      ? room
                                      : std::min<std::uint64_t>(header->record_count, room);
    for (std::uint64_t i = 0; i < records; ++i, offset += record_size) {
      ECHOFS_RETURN_IF_ERROR(ReadZeroFilled(journal, offset, record));
      const PageNumber page = LoadBe32(record.data());
      const ByteView old = ByteView(record).subspan(4, content.page_size);
      if (page == 0 || page == LockPage(content.page_size) ||
          sqlite::JournalPageChecksum(header->nonce, old) !=
              LoadBe32(record.data() + 4 + content.page_size)) {
        return content;
      }
      if (page <= content.page_count) content.pages.try_emplace(page, offset + 4);
    }
    offset = (offset + sector - 1) / sector * sector;
    if (offset + sqlite::kJournalHeaderSize > size) break;
    ECHOFS_ASSIGN_OR_RETURN(n, journal.ReadAt(offset, bytes));
    header = sqlite::ParseJournalHeader(ByteView(bytes).first(n));
  }
  return content;
}

}  // namespace echofs::fs
