"""Reads the LTX files that echofs exports (version 3, as the primary writes them: every page one LZ4 block)."""

import struct

import lz4.block

HEADER = struct.Struct(">4sIIIQQ")  # magic, flags, page size, pages in the database afterwards, first and last TXID
HEADER_BYTES = 100
DIGEST_AT = 88  # of the database afterwards, as echofs writes it
FRAME = struct.Struct(">IHI")  # page number, flags, size of the block


class LtxFile:
    def __init__(self, path):
        with open(path, "rb") as file:
            content = file.read()
        magic, _, self.page_size, self.commit, self.first_txid, self.last_txid = HEADER.unpack_from(content)
        assert magic == b"LTX1", f"{path} is no LTX file"
        self.digest, = struct.unpack_from(">Q", content, DIGEST_AT)
        self.pages = {}
        at = HEADER_BYTES
        while content[at:at + 6] != bytes(6):
            number, flags, size = FRAME.unpack_from(content, at)
            assert flags == 1, f"{path}: a frame with flags {flags}"
            at += FRAME.size
            self.pages[number] = lz4.block.decompress(content[at:at + size], uncompressed_size=self.page_size)
            at += size

    def apply_to(self, database):
        """Changes a database file that no connection has open."""
        for number, page in self.pages.items():
            database.seek((number - 1) * self.page_size)
            database.write(page)
        database.truncate(self.commit * self.page_size)
