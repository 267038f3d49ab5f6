"""SQLite's C library as far as Python's sqlite3 module does not show it: sqlite3_file_control."""

import ctypes

FCNTL_SIZE_HINT = 5
FCNTL_CHUNK_SIZE = 6
OPEN_READWRITE_CREATE = 0x2 | 0x4

_library = ctypes.CDLL("libsqlite3.so.0")
_library.sqlite3_errmsg.restype = ctypes.c_char_p
for _name, _types in (("open_v2", [ctypes.c_char_p, ctypes.POINTER(ctypes.c_void_p), ctypes.c_int,
                                   ctypes.c_char_p]),
                      ("close", [ctypes.c_void_p]), ("errmsg", [ctypes.c_void_p]),
                      ("busy_timeout", [ctypes.c_void_p, ctypes.c_int]),
                      ("exec", [ctypes.c_void_p, ctypes.c_char_p] + [ctypes.c_void_p] * 3),
                      ("file_control", [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int,
                                        ctypes.c_void_p])):
    getattr(_library, "sqlite3_" + _name).argtypes = _types


class Connection:
    def __init__(self, path):
        self._handle = ctypes.c_void_p()
        self._check(_library.sqlite3_open_v2(path.encode(), ctypes.byref(self._handle),
                                             OPEN_READWRITE_CREATE, None))
        self._check(_library.sqlite3_busy_timeout(self._handle, 20000))

    def _check(self, code):
        if code != 0:
            raise AssertionError(f"SQLite error {code}: {_library.sqlite3_errmsg(self._handle).decode()}")

    def execute(self, *statements):
        for statement in statements:
            self._check(_library.sqlite3_exec(self._handle, statement.encode(), None, None, None))

    def set_chunk_size(self, size):
        """The database file grows and shrinks in multiples of `size` bytes."""
        value = ctypes.c_int(size)
        self._check(_library.sqlite3_file_control(self._handle, b"main", FCNTL_CHUNK_SIZE,
                                                  ctypes.byref(value)))

    def hint_size(self, size):
        """The database file will grow to `size` bytes."""
        value = ctypes.c_int64(size)
        self._check(_library.sqlite3_file_control(self._handle, b"main", FCNTL_SIZE_HINT,
                                                  ctypes.byref(value)))

    def close(self):
        self._check(_library.sqlite3_close(self._handle))
