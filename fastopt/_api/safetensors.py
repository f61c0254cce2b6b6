"""The safetensors format: numbers and arrays as the bytes of a file, and back.

A file is the length of its header (8 bytes, little-endian), the header (JSON: the dtype, the shape and the place of
each array, and a mapping of strings to strings, the metadata), and the arrays in C order. That is written and read here
and not by the library of this name, which writes all at once, and reads no bfloat16 without ml_dtypes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .._arrays import gpu
from .._arrays.checks import Array
from .._arrays.view import View

#: What the format calls the dtypes; uint16 is the bits of bfloat16 wherever there is one.
_NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "uint16": "BF16",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
}
_DTYPES = {name: np.dtype(dtype) for dtype, name in _NAMES.items()}
_METADATA = "__metadata__"
_FORMAT, _VERSION = "fastopt", "1"
#: What stands in the place of the digest while it is taken.
BLANK = b"0" * 64
#: The longest header that is read here and by the safetensors library, in bytes.
_LONGEST_HEADER = 100_000_000
#: Bytes that are hashed and then written: few enough to be in cache for that.
_BLOCK = 2**20


def new_digest() -> Any:
    """Return what is updated with the bytes of a file, :data:`BLANK` in the place of its digest."""
    return hashlib.blake2b(digest_size=len(BLANK) // 2)


def header(settings: Mapping[str, Any], arrays: Sequence[tuple[str, Array | View]]) -> bytes:
    """Return all that comes before the arrays; the digest is the first :data:`BLANK` in it.

    Raises
    ------
    ValueError
        If it is longer than readers take.
    """
    others = dict(settings)
    entries: dict[str, Any] = {
        _METADATA: {
            "digest": BLANK.decode(),
            "format": _FORMAT,
            "version": _VERSION,
            "optimizer": others.pop("optimizer"),
            "step": str(others.pop("step")),
            "settings": json.dumps(others),  # a float has as many digits as it takes to read its bits back
        }
    }
    end = 0
    for name, array in arrays:
        begin, end = end, end + array.nbytes
        dtype = _NAMES[array.dtype.name]
        entries[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) + 8 > _LONGEST_HEADER:
        raise ValueError(
            f"the header of a safetensors file must have at most {_LONGEST_HEADER} bytes, got {len(text) + 8} "
            f"for {len(arrays)} arrays"
        )
    return len(text).to_bytes(8, "little") + text


def blocks(data: bytes | Array | View) -> Iterator[memoryview]:
    """Yield the bytes of a header, or of an array on any device and in any order, in blocks."""
    if isinstance(data, bytes):
        flat = memoryview(data)
    else:
        in_memory = data if isinstance(data, np.ndarray) else gpu.copy(data)
        flat = np.ascontiguousarray(in_memory).reshape(-1).view(np.uint8).data
    for start in range(0, len(flat), _BLOCK):
        yield flat[start : start + _BLOCK]


def parse(content: Array) -> dict[str, Any]:
    """Return the settings and the arrays, which are views, in the bytes of a file.

    Raises
    ------
    ValueError
        If they are no checkpoint, or not as they were written.
    """
    begin = 8 + int.from_bytes(content[:8].tobytes(), "little")
    if content.size < begin or begin > _LONGEST_HEADER:
        raise ValueError(
            f"not a safetensors file, or not a whole one: by its first 8 bytes its header must end at {begin}; "
            f"got {content.size} bytes"
        )
    head, body = content[:begin].tobytes(), content[begin:]
    try:
        entries = json.loads(head[8:])
        metadata = entries.pop(_METADATA, {})
        kind, version = metadata.get("format"), metadata.get("version")
    except (AttributeError, TypeError, ValueError, RecursionError):
        raise ValueError("not a safetensors file, or a corrupted one: its header is not JSON of that format") from None
    if kind != _FORMAT:
        raise ValueError(f"not a checkpoint of fastopt: its metadata must have format={_FORMAT!r}, got {kind!r}")
    if version != _VERSION:
        raise ValueError(f"the checkpoint must be of version {_VERSION!r}, got {version!r}")
    try:
        size = begin + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        claimed = metadata["digest"].encode()
        if content.size != size:
            raise ValueError(f"the checkpoint must have {size} bytes, as its header says; got {content.size}")
        digest = new_digest()
        digest.update(head.replace(claimed, BLANK, 1))
        for block in blocks(body):
            digest.update(block)
        if digest.hexdigest().encode() != claimed:
            raise ValueError(
                f"the checkpoint is corrupted: its digest must be {digest.hexdigest()!r}, got {claimed.decode()!r}"
            )
        saved = {**json.loads(metadata["settings"]), "optimizer": metadata["optimizer"], "step": int(metadata["step"])}
        for name, entry in entries.items():
            first, last = entry["data_offsets"]
            saved[name] = body[first:last].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"the checkpoint is corrupted: its header is not that of one ({error!r})") from error
    return saved
