"""Just enough gRPC to time a call without the start of a program: one call after the other on one
connection over a unix socket. Strings and small numbers only; nothing of an answer is looked at but
its status."""

import socket
import struct
import time

DATA, HEADERS, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number, value):
    """A protobuf field of a string or a number."""
    if isinstance(value, str):
        data = value.encode()
        return varint(number << 3 | 2) + varint(len(data)) + data
    return varint(number << 3) + varint(value)


def header(name, value):
    """An HPACK literal that is not indexed; all are shorter than 127 bytes."""
    return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


class Api:
    def __init__(self, path, limit=30):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(limit)
        self.socket.connect(str(path))
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + self.frame(SETTINGS, 0, 0, b""))
        self.stream = 1

    @staticmethod
    def frame(kind, flags, stream, payload):
        return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload

    def receive(self, size):
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            if not piece:
                raise ConnectionError("the target closed the connection")
            data += piece
        return data

    def call(self, method, *fields):
        """Makes a call; gives the seconds until its end and the bytes of the answer."""
        message = b"".join(field(number, value) for number, value in fields)
        headers = b"".join(
            header(name, value)
            for name, value in (
                (":method", "POST"), (":scheme", "http"), (":path", f"/forerun.v1.Forerun/{method}"),
                (":authority", "socket"), ("content-type", "application/grpc"), ("te", "trailers"),
            )
        )  # fmt: skip
        body = b"\x00" + struct.pack(">I", len(message)) + message
        began = time.monotonic()
        self.socket.sendall(
            self.frame(HEADERS, END_HEADERS, self.stream, headers) + self.frame(DATA, END_STREAM, self.stream, body)
        )
        answer = b""
        while True:
            head = self.receive(9)
            length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
            stream = int.from_bytes(head[5:], "big") & 0x7FFFFFFF
            payload = self.receive(length)
            if kind == SETTINGS and not flags & ACK:
                self.socket.sendall(self.frame(SETTINGS, ACK, 0, b""))
            elif kind == PING and not flags & ACK:
                self.socket.sendall(self.frame(PING, ACK, 0, payload))
            elif kind == GOAWAY:
                raise ConnectionError("the target refused the connection")
            elif kind == DATA and stream == self.stream:
                answer += payload
            if stream == self.stream and kind in (DATA, HEADERS) and flags & END_STREAM:
                break
        took = time.monotonic() - began
        self.stream += 2
        if not answer:
            raise ConnectionError(f"{method} failed: the answer holds no message")
        return took, answer[5:]

    def close(self):
        self.socket.close()
