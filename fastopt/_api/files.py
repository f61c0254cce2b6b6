"""Checkpoints in files: written whole or not at all, and checked before anything is changed."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from .._arrays.checks import Array
from .._arrays.view import View
from . import checkpoint, safetensors

Progress = Callable[[int, int], object]


class InFiles:
    """An optimizer that is copied, pickled, and saved to files."""

    def __getstate__(self: Any) -> dict[str, Any]:
        """Return what a copy or a pickle needs; addresses and compiled rules are made anew from it."""
        return checkpoint.dump(self)

    def __setstate__(self: Any, state: dict[str, Any]) -> None:
        """Take what :meth:`__getstate__` returned, with arrays that may be read-only or in a file now."""
        checkpoint.revive(self, state)

    def save(self, path: str | os.PathLike[str], *, params: bool = False, progress: Progress | None = None) -> None:
        """Write a checkpoint to a file in the safetensors format, from which :meth:`load` goes on.

        The file is complete or not there: it is written beside `path` under another name, flushed to the disk, and
        renamed. Whenever the process is killed, `path` is the old file or the new one. What a killed save left behind
        (``.<name>.<random>.tmp``) is removed by the next one.

        Parameters
        ----------
        path : str or os.PathLike
            The file; one that is there is replaced.
        params : bool, default False
            Whether the parameters are part of it too.
        progress : callable, optional
            ``progress(written, total)`` is called with bytes after each MiB and each array. If it raises, the old file
            stays.

        Raises
        ------
        TypeError
            If an argument is of another type.
        ValueError
            If there are too many arrays for a header of 100 MB: about a million.
        OSError
            If the file cannot be written; an old one stays.

        Notes
        -----
        Every library that reads safetensors reads it: states in bfloat16 are BF16, those in "int8" are U8 beside scales
        in I16, and each array is aligned to its elements. The names are those of :meth:`state_dict`, and ``params`` or
        ``params/name`` for parameters. The metadata has ``optimizer``, ``step`` and, as JSON, all other ``settings``
        with the exact float64; ``digest`` is the BLAKE2b (256 bits) of the file with 64 zeros in its place.

        Arrays in memory are written from where they are; only those in Fortran order and those on a GPU are copied, one
        at a time. The digest takes about a second per GB, here and in :meth:`load`, whatever the disk does.

        Examples
        --------
        >>> import pathlib, tempfile
        >>> import numpy as np
        >>> import fastopt
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "adam.safetensors"
        >>> p = np.zeros(3)
        >>> opt = fastopt.Adam(p, lr=0.1)
        >>> opt.step(np.ones(3))
        >>> opt.save(file, params=True)
        >>> resumed = fastopt.Adam(np.zeros(3))
        >>> resumed.load(file)
        >>> resumed.step_count, resumed.lr, bool((resumed.params == p).all())
        (1, 0.1, True)
        """
        write(self, path, params, progress)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on from a file that :meth:`save` wrote: states, step number and hyperparameters.

        If the parameters are part of it, they are written to `params` in place. A run continued so gives the bits of
        one that was never interrupted. An `lr` that is a function stays.

        Parameters
        ----------
        path : str or os.PathLike
            The file.

        Raises
        ------
        TypeError, ValueError
            If it is no checkpoint, not whole, was changed by a single bit, is of another optimizer, or if an entry is
            missing or not acceptable; nothing has been changed then. The message begins with `path`.
        OSError
            If there is no such file, or it cannot be read; nothing has been changed then.

        Notes
        -----
        The file is mapped into memory and read twice: once for its digest, once into the states.

        Examples
        --------
        See :meth:`save`.

        >>> import numpy as np
        >>> import fastopt
        >>> fastopt.Adam(np.zeros(3)).load("missing.safetensors")
        Traceback (most recent call last):
        FileNotFoundError: [Errno 2] No such file or directory: 'missing.safetensors'
        """
        read(self, path)


def write(optimizer: Any, path: str | os.PathLike[str], params: bool, progress: Progress | None) -> None:
    """Do what :meth:`InFiles.save` promises."""
    target = Path(os.path.realpath(_checked(path)))
    if not isinstance(params, bool):
        raise TypeError(f"params must be True or False, got {params!r}")
    if not (progress is None or callable(progress)):
        raise TypeError(f"progress must be callable with two numbers, or None; got {progress!r}")
    # The widest elements first, so that all are aligned.
    arrays = sorted(checkpoint.arrays(optimizer, params=params), key=lambda item: -item[1].itemsize)
    header = safetensors.header(checkpoint.settings(optimizer), arrays)
    parts: list[bytes | Array | View] = [header, *(array for _, array in arrays)]
    total = len(header) + sum(array.nbytes for _, array in arrays)
    written, digest = 0, safetensors.new_digest()
    with _replacing(target) as file:
        for part in parts:
            for block in safetensors.blocks(part):
                digest.update(block)
                file.write(block)
                written += len(block)
                if progress is not None:
                    progress(written, total)
        file.seek(header.index(safetensors.BLANK))
        file.write(digest.hexdigest().encode())


def read(optimizer: Any, path: str | os.PathLike[str]) -> None:
    """Do what :meth:`InFiles.load` promises."""
    with Path(_checked(path)).open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if os.fstat(file.fileno()).st_size else b""
    content = np.frombuffer(mapped, np.uint8) if mapped else np.empty(0, np.uint8)
    try:
        saved = safetensors.parse(content)
        has_params = any(name.partition("/")[0] == "params" for name in saved)
        checkpoint.restore(optimizer, saved, params=has_params)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{os.fspath(path)}: {error}") from error


def _checked(path: str | os.PathLike[str]) -> str:
    """Return a path as a string.

    Raises
    ------
    TypeError
        If it is none.
    """
    name = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    if not isinstance(name, str):
        raise TypeError(f"path must be a str or an os.PathLike of one, got {type(path).__name__} {path!r}")
    return name


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[IO[bytes]]:
    """Yield a new file, which takes the place of `target` at the end; if anything is raised, it is removed.

    Raises
    ------
    OSError
        If `target` is a folder, or there is no folder for it.
    """
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no folder for", str(target))
    if target.exists() and not target.is_file():  # a device or a pipe, in whose place a file would stand
        raise OSError(errno.EINVAL, "is no regular file", str(target))
    _remove_leftovers(target)
    temporary, file = _begin(target)
    try:
        with file:
            if target.exists():
                shutil.copymode(target, temporary)
            yield file
            file.flush()
            os.fsync(file.fileno())
            if os.name == "nt":  # which renames no open file
                file.close()
            temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    # The rename too is on the disk then. Windows opens no folders.
    with contextlib.suppress(PermissionError):
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _begin(target: Path) -> tuple[Path, IO[bytes]]:
    """Return a new file beside `target`, and its name; locked, unless that cannot be.

    Another save may take it for a leftover between its first moment and the lock: then there is another one.
    """
    for tries_left in reversed(range(5)):
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
        file = temporary.open("xb")
        if (_lock(file) or not tries_left) and temporary.exists():
            return temporary, file
        file.close()
        temporary.unlink(missing_ok=True)
    raise OSError(errno.EAGAIN, "other saves remove what is written", str(target))


def _lock(file: IO[bytes]) -> bool:
    """Take the lock of a file, which lasts as long as its process at most; say whether nobody else has it."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):  # on Windows; of another process, or on a file system without locks
        return False
    return True


def _remove_leftovers(target: Path) -> None:
    """Remove what saves that were killed left beside `target`: what nobody has the lock of."""
    temporary = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{16}}\.tmp")
    for path in target.parent.iterdir():
        if temporary.fullmatch(path.name):
            with contextlib.suppress(OSError), path.open("r+b") as file:
                if _lock(file):
                    path.unlink()
