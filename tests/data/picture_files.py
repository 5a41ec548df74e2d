"""PNG files written chunk by chunk: Pillow writes no grays of 1, 2 and 4 bits."""

from __future__ import annotations

import struct
import zlib

import numpy as np


def png(
    size: tuple[int, int], bits: int, color_type: int, rows: bytes, transparent: bytes = b""
) -> bytes:
    """A PNG of ROWS, each of which begins with its filter."""
    header = struct.pack(">IIBBBBB", *size, bits, color_type, 0, 0, 0)
    chunks = [
        (b"IHDR", header),
        (b"tRNS", transparent),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(*each) for each in chunks if each[0] != b"tRNS" or transparent
    )


def gray_png(
    values: np.ndarray, bits: int, transparent: int | None = None, palette: bool = False
) -> bytes:
    """VALUES (h, w) as grays, or palette indices, of so many bits, one of which may be
    transparent.
    """
    lines = []
    for row in values:
        digits = "".join(format(int(value), f"0{bits}b") for value in row)
        digits += "0" * (-len(digits) % 8)
        lines.append(b"\0" + int(digits, 2).to_bytes(len(digits) // 8, "big"))
    key = b"" if transparent is None else struct.pack(">H", transparent)
    content = png(values.shape[::-1], bits, 3 if palette else 0, b"".join(lines), key)
    if not palette:
        return content
    colors = b"".join(bytes((90 + i % 100, 7, 200 - i % 50)) for i in range(2**bits))
    return content[:33] + _chunk(b"PLTE", colors) + content[33:]


def _chunk(name: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )
