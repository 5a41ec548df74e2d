"""Small ICC profiles, written by hand: RGB with chosen primaries, gray with a chosen gamma, CMYK by
a table.
"""

from __future__ import annotations

import struct

_D50 = (0.9642, 1.0, 0.8249)


def rgb_profile(columns: list[tuple[float, float, float]], gamma: float) -> bytes:
    """A matrix profile: COLUMNS are the XYZ of red, green and blue."""
    tags = {
        name: _xyz(column)
        for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)
    }
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(gamma))
    return _profile(b"RGB ", b"XYZ ", tags)


def gray_profile(gamma: float) -> bytes:
    return _profile(b"GRAY", b"XYZ ", {b"kTRC": _curve(gamma)})


def cmyk_profile(lab_of_corners: list[tuple[int, int, int]]) -> bytes:
    """Colors as (L, a, b) in 8 bits of the 16 corners of the cube, of which K changes
    the fastest.
    """
    ramp = bytes(range(256))
    table = struct.pack(">BBBx9i", 4, 3, 2, *(65536 if i % 4 == 0 else 0 for i in range(9)))
    table += ramp * 4 + bytes(value for corner in lab_of_corners for value in corner) + ramp * 3
    return _profile(b"CMYK", b"Lab ", {b"A2B0": b"mft1\0\0\0\0" + table})


def _profile(space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    tags = {
        b"wtpt": _xyz(_D50),
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(79),
        **tags,
    }
    table, data = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", start + len(data), len(content))
        data += content
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    head = struct.pack(
        ">I4sI4s4s4s12x4s28x",
        start + len(data),
        b"test",
        0x02400000,
        kind,
        space,
        connection,
        b"acsp",
    )
    head += struct.pack(">3i", *(round(value * 65536) for value in _D50))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def _curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(gamma * 256))
