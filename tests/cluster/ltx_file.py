"""A reader of LTX version 3 files that shares nothing with echofs's own, for the cluster tests.

It checks what the `ltx` tool and Litestream check: header, order of pages, page index, and the CRC-64 of the file.
"""

import struct

POLYNOMIAL = 0xD800000000000000
MASK = (1 << 64) - 1


def _table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ POLYNOMIAL if value & 1 else value >> 1
        table.append(value)
    return table


TABLE = _table()


class Crc64:
    """CRC-64/ISO as Go's hash/crc64 computes it."""

    def __init__(self):
        self.value = MASK

    def add(self, data):
        value = self.value
        for byte in data:
            value = TABLE[value & 0xff ^ byte] ^ value >> 8
        self.value = value

    def result(self):
        return self.value ^ MASK


def _check_crc():
    crc = Crc64()
    crc.add(b"123456789")
    assert crc.result() == 0xb90956c775a41001


_check_crc()


def _length(data, at, nibble):
    """A length of an LZ4 block, which goes on in further bytes from 15 on."""
    if nibble == 15:
        while True:
            nibble += data[at]
            at += 1
            if data[at - 1] != 255:
                break
    return nibble, at


def lz4_block(data):
    """What an LZ4 block decompresses to."""
    out = bytearray()
    at = 0
    while at < len(data):
        token = data[at]
        count, at = _length(data, at + 1, token >> 4)
        out += data[at:at + count]
        at += count
        if at == len(data):
            break
        back, = struct.unpack_from("<H", data, at)
        count, at = _length(data, at + 2, token & 15)
        start = len(out) - back
        for i in range(count + 4):
            out.append(out[start + i])
    return bytes(out)


def varint(data, at):
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at


class LtxFile:
    """The header's fields, and the pages by number."""

    def __init__(self, path):
        with open(path, "rb") as file:
            data = file.read()
        (magic, flags, self.page_size, self.commit, self.min_txid, self.max_txid, self.time_ms, pre_checksum,
         _, _, _, _, _, self.term, self.digest) = struct.unpack_from(">4sIIIQQqQqqIIQQQ", data)
        assert (magic, flags, pre_checksum) == (b"LTX1", 2, 0)
        crc = Crc64()
        crc.add(data[:100])
        self.pages = {}
        frames = []
        at = 100
        while data[at:at + 6] != bytes(6):
            number, frame_flags, size = struct.unpack_from(">IHI", data, at)
            assert frame_flags == 1 and number > max(self.pages, default=0) and number <= self.commit
            assert number != 0x40000000 // self.page_size + 1, "the lock page"
            page = lz4_block(data[at + 10:at + 10 + size])
            assert len(page) == self.page_size
            crc.add(data[at:at + 10])
            crc.add(page)
            frames.append((number, at, size + 10))
            self.pages[number] = page
            at += 10 + size
        crc.add(data[at:-8])
        index_at = at = at + 6
        for frame in frames:
            for expected in frame:
                value, at = varint(data, at)
                assert value == expected, "the page index is wrong"
        assert data[at] == 0
        index_size, post_checksum, checksum = struct.unpack_from(">QQQ", data, at + 1)
        assert index_size == at + 1 - index_at and post_checksum == 0 and at + 25 == len(data)
        assert checksum == crc.result() | 1 << 63, "the checksum of the file is wrong"

    def apply(self, database):
        """Onto the content of a database, a bytearray."""
        size = self.commit * self.page_size
        database.extend(bytes(max(0, size - len(database))))
        for number, page in self.pages.items():
            database[(number - 1) * self.page_size:number * self.page_size] = page
        del database[size:]
