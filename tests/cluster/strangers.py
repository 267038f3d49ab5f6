"""Connections to echofs' ports from whoever is no node: raw bytes, half an HTTP/2, TLS with any certificate."""

import os
import re
import socket
import ssl
import struct
import warnings

from processes import WAIT_SECONDS

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FOLLOW = "/echofs.v1.Replication/Follow"
FETCH = "/echofs.v1.Replication/FetchDatabase"
LEASE_READ = "/echofs.v1.LeaseService/Read"
STATUS = "/echofs.v1.Admin/GetStatus"
# The most that is read of an answer.
ANSWER_BYTES = 1 << 20


def frame(kind, payload, flags=0, stream=0):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def text(value):
    return bytes([len(value)]) + value.encode()  # up to 126 bytes, without Huffman's code


def headers(path, **extra):
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x", "te": "trailers",
              "content-type": "application/grpc", **extra}
    return b"".join(b"\x00" + text(name) + text(value) for name, value in fields.items())


def call(path, data, end=True, **extra):
    """The bytes of one gRPC call; `data` stands in DATA frames as it is."""
    frames = [data[i:i + 16384] for i in range(0, len(data), 16384)]
    out = PREFACE + frame(4, b"") + frame(1, headers(path, **extra), flags=4, stream=1)
    for i, piece in enumerate(frames):
        out += frame(0, piece, flags=1 if end and i + 1 == len(frames) else 0, stream=1)
    return out


def message(data):
    return b"\x00" + struct.pack(">I", len(data)) + data


def field(number_, value):
    """A field of a protobuf message: text, or another message."""
    value = value.encode() if isinstance(value, str) else value
    return bytes([number_ << 3 | 2, len(value)]) + value  # up to 127 bytes


def number(number_, value):
    out = bytes([number_ << 3])
    while value > 0x7f:
        out += bytes([value & 0x7f | 0x80])
        value >>= 7
    return out + bytes([value])


def calls_of(proto):
    """The paths of all calls of the service that a file in proto/ describes."""
    source = os.path.join(os.path.dirname(__file__), "..", "..", "proto", "echofs", "v1", proto + ".proto")
    with open(source, encoding="utf-8") as file:
        content = file.read()
    service = re.search(r"^service (\w+)", content, re.M).group(1)
    return [f"/echofs.v1.{service}/{name}" for name in re.findall(r"^  rpc (\w+)\(", content, re.M)]


def garbage(path):
    """(what it is, bytes) of all that a stranger could send to a plain port that serves `path`."""
    yield "nothing", b""
    yield "random bytes", os.urandom(5000)
    yield "zeros", bytes(5000)
    yield "HTTP/1", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    yield "a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(500)
    yield "half a preface", PREFACE[:11]
    yield "half a frame", PREFACE + frame(4, b"") + frame(1, headers(path), flags=4, stream=1)[:20]
    yield "a frame that is too large", PREFACE + frame(4, b"") + struct.pack(">I", 0xffffff)[1:] + bytes(6 + 5000)
    yield "damaged headers", PREFACE + frame(4, b"") + frame(1, b"\xff" * 100, flags=5, stream=1)
    yield "headers that are too large", call(path, b"", **{f"x{i}": "y" * 100 for i in range(120)})
    yield "an unknown method", call("/echofs.v1.Replication/Nothing", message(b""))
    yield "a message that is no protobuf", call(path, message(b"\xff" * 100))
    yield "an empty message", call(path, message(b""))
    yield "half a message", call(path, message(bytes(1000))[:100])
    yield "a message of 4 GiB, it says", call(path, b"\x00\xff\xff\xff\xff" + bytes(100000))
    yield "a message of 5 MiB", call(path, message(bytes(5 << 20)))
    yield "a compressed message", call(path, b"\x01" + message(b"\xff" * 100)[1:], **{"grpc-encoding": "gzip"})


def connect(address):
    if address.startswith("/"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(WAIT_SECONDS)
        connection.connect(address)
        return connection
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=WAIT_SECONDS)


def receive(connection, seconds, until=b""):
    """What comes until the end, `until`, or some seconds of silence."""
    answer = b""
    connection.settimeout(seconds)
    try:
        while len(answer) < ANSWER_BYTES and not (until and until in answer):
            piece = connection.recv(65536)
            if not piece:
                break
            answer += piece
    except OSError:
        pass  # a reset, or silence
    return answer


def send(address, data, seconds=0.2, until=b""):
    """Sends bytes, hangs up, and returns what came back."""
    with connect(address) as connection:
        try:
            connection.sendall(data)
        except OSError:
            pass  # it did not want to read all of it
        return receive(connection, seconds, until)


def tls_call(address, data, ca=None, cert=None, key=None):
    """(answer, why not): sends bytes over TLS 1.3, as a client that believes any server unless `ca` is given."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED if ca else ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if ca:
        context.load_verify_locations(ca)
    if cert:
        context.load_cert_chain(cert, key)
    try:
        with connect(address) as plain, context.wrap_socket(plain) as connection:
            connection.sendall(data)
            # The settings of HTTP/2 are what a server says first to a client that it has let in.
            answer = b""
            while not answer:
                piece = connection.recv(65536)
                if not piece:
                    return b"", "closed"
                answer += piece
            return answer, None
    except (ssl.SSLError, OSError) as error:
        return b"", str(error)
