"""Files and folders that a stranger could send.

Each with a program in it makes a marker when it is run.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Program:
    """What unpickling would run: it makes the file MARKER."""

    def __init__(self, marker: Path):
        self.marker = str(marker)

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self.marker),)


def make(folder: Path, marker: Path) -> dict[str, Path]:
    """Write all hostile files and folders below FOLDER, and return them by name."""
    folder.mkdir(parents=True)
    program = pickle.dumps(Program(marker), protocol=2)
    files = {
        f"pickle.{suffix}": program
        for suffix in ("pkl", "bin", "pt", "npy", "png", "json", "mat", "parquet")
    }
    files |= _torch_files(Program(marker))
    files |= _arrays(Program(marker))
    files |= _texts(marker)
    files |= _pictures()
    files |= _archives(folder, program)
    files |= {
        "empty": b"",
        "zeros.safetensors": bytes(1000),
        "header.safetensors": struct.pack("<Q", 2**40) + b"{",
    }
    files["beyond.safetensors"] = _safetensors(
        {"x": {"dtype": "F32", "shape": [10**6] * 3, "data_offsets": [0, 4]}}
    )
    for name, content in files.items():
        (folder / name).write_bytes(content)
    paths = {name: folder / name for name in files}
    return paths | _folders(folder / "folders", files)


def _torch_files(program: Program) -> dict[str, bytes]:
    files = {}
    for name, content, new in (
        ("saved.pt", program, True),
        ("saved_state.pth", {"state_dict": {"x": torch.zeros(2)}, "more": program}, True),
        ("old.pt", program, False),
        ("old_state.bin", {"x": torch.zeros(2), "y": program}, False),
    ):
        file = io.BytesIO()
        torch.save(content, file, _use_new_zipfile_serialization=new)
        files[name] = file.getvalue()
    file = io.BytesIO()
    torch.save({"model": {"x": torch.zeros(1).expand(10**6, 10**6)}}, file)
    files["repeated.pt"] = file.getvalue()
    return files | {"cut.pt": files["saved_state.pth"][:-100]}


def _arrays(program: Program) -> dict[str, bytes]:
    one, many = io.BytesIO(), io.BytesIO()
    np.save(one, np.array([program], dtype=object), allow_pickle=True)
    np.savez(many, x=np.array([program], dtype=object))
    return {"objects.npy": one.getvalue(), "objects.npz": many.getvalue()}


def _texts(marker: Path) -> dict[str, bytes]:
    return {
        "nested.json": b"[" * 100_000,
        "objects.json": b'{"a":' * 100_000,
        "numbers.json": b"[" + b"1" * 100_000 + b"]",
        "nan.json": b'{"embed_dim": NaN, "images": [NaN]}',
        "program.yaml": f"!!python/object/apply:os.system ['touch {marker}']".encode(),
        "picture.svg": (
            b'<!DOCTYPE s [<!ENTITY a SYSTEM "file:///etc/passwd">]><svg xmlns="x">&a;</svg>'
        ),
        "bytes.txt": bytes(range(256)) * 10,
        "zeros.txt": bytes(1000),
        "line.txt": b"x" * 1_000_000,
    }


def _pictures() -> dict[str, bytes]:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    def png(width: int, height: int, depth: int, color: int, rows: bytes) -> bytes:
        header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
        packed = chunk(b"IDAT", zlib.compress(rows, 9))
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + packed + chunk(b"IEND", b"")

    side = 60_000
    bomb = png(side, side, 1, 0, bytes(2**22))
    tiff = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 3)
    tiff += b"".join(struct.pack("<HHII", tag, 4, 1, 2**31 - 1) for tag in (256, 257, 273)) + bytes(
        4
    )
    jpeg = bytes.fromhex("ffd8 ffc0 0011 08 ffff ffff 03 012200 021101 031101 ffd9")
    text = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0))
    text += chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**27), 9)) + chunk(b"IEND", b"")
    return {
        "bomb.png": bomb,
        "cut.png": png(99, 99, 8, 2, bytes(500)),
        "text.png": text,
        "bomb.jpg": jpeg,
        "bomb.tif": tiff,
        "cut.gif": b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\xf7\x00\x00",
        "cut.mp4": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom\xff\xff\xff\xffmoov",
    }


def _archives(folder: Path, program: bytes) -> dict[str, bytes]:
    plain, tar = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(plain, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../outside.txt", "x")
        archive.writestr("zeros", bytes(2**26))
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name in (
            "../../outside.txt",
            str(folder.parent / "outside.txt"),
            "a.jpg",
            "a.txt",
            "b.pyd",
            "b.pickle",
        ):
            member = tarfile.TarInfo(name)
            member.size = len(program)
            archive.addfile(member, io.BytesIO(program))
        for name, kind in (
            ("c.jpg", tarfile.SYMTYPE),
            ("d.jpg", tarfile.LNKTYPE),
            ("e.jpg", tarfile.CHRTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    return {
        "outside.zip": plain.getvalue(),
        "outside.tar": tar.getvalue(),
        "cut.tar": tar.getvalue()[:700],
    }


def _safetensors(header: dict[str, Any]) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(4)


def _folders(folder: Path, files: dict[str, bytes]) -> dict[str, Path]:
    """Folders as transformers, this package and data sets have them, with hostile files in the
    places of theirs.
    """
    clip = {"model_type": "clip", "projection_dim": 8, "text_config": {}, "vision_config": {}}
    contents = {
        "transformers_pickle": {
            "config.json": json.dumps(clip),
            "pytorch_model.bin": files["pickle.bin"],
        },
        "transformers_saved": {
            "config.json": json.dumps(clip),
            "pytorch_model.bin": files["saved.pt"],
        },
        "transformers_old": {
            "config.json": json.dumps(clip),
            "pytorch_model.bin": files["old_state.bin"],
        },
        "transformers_nested": {
            "config.json": files["objects.json"],
            "model.safetensors": files["zeros.safetensors"],
        },
        "transformers_header": {
            "config.json": json.dumps(clip),
            "model.safetensors": files["header.safetensors"],
        },
        "transformers_program": {
            "config.json": json.dumps(clip | {"auto_map": {"AutoConfig": "program.Config"}}),
            "program.py": "raise SystemExit(3)",
            "tokenizer_config.json": json.dumps(
                {"auto_map": {"AutoTokenizer": ["program.T", None]}}
            ),
        },
        "checkpoint_nested": {
            "run.json": files["objects.json"],
            "weights.safetensors": files["zeros.safetensors"],
            "tokenizer.json": files["nested.json"],
        },
        "checkpoint_pickle": {
            "run.json": files["pickle.pkl"],
            "weights.safetensors": files["pickle.pkl"],
        },
        "records": {
            f"{name}.json": files["objects.json"]
            for name in ("run", "teacher", "index", "segments", "self-training")
        },
        "photos": {
            name: files[name]
            for name in files
            if Path(name).suffix in (".png", ".jpg", ".tif", ".gif")
        },
    }
    for name, members in contents.items():
        (folder / name).mkdir(parents=True)
        for member, content in members.items():
            (folder / name / member).write_bytes(
                content.encode() if isinstance(content, str) else content
            )
    (folder / "everything").mkdir()
    for name, content in files.items():
        (folder / "everything" / name).write_bytes(content)
    (folder / "loop").mkdir()
    (folder / "loop" / "again").symlink_to(folder / "loop")
    return {path.name: path for path in folder.iterdir()}
