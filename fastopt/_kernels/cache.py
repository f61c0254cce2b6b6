"""Compiled kernels on disk: one file per kernel, found by a digest of everything that it depends on.

Numba's own cache keeps an index beside numbered files. Two processes that begin with an empty one can write one
kernel under the number of another, a damaged index fails every later call, and a folder that cannot be written to is
not read either. Here the name of a file is the whole key, so that there is nothing to go wrong between two files; its
contents are checked before anything of them is used; and whatever cannot be read is compiled.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core.compiler import CompileResult
from numba.core.runtime import rtsys
from numba.core.serialize import dumps
from numba.misc.appdirs import AppDirs

from .symbols import UNKNOWN

#: What a file begins with; the digest of the rest follows.
_MAGIC = b"fastopt kernel 1\n"
# Settings of Numba's that change the code it makes, beside the processor that it makes it for.
_SETTINGS = ("OPT", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "USING_SVML")

#: The digests of all updates that were made for use inside compiled code in this process.
present: set[str] = set()
#: Why new kernels are not kept on disk, or None.
problem: str | None = None
_checked = _warned = False


def folders() -> list[Path]:
    """Return where kernels may be: each is read, and the first that can be is written to."""
    if numba.config.CACHE_DIR:
        return [Path(numba.config.CACHE_DIR) / "fastopt"]
    package = Path(__file__).parents[1]
    own = [package / "__pycache__"] if package.is_dir() else []  # none in a zip file
    return [*own, Path(AppDirs("fastopt", appauthor=False).user_cache_dir)]


class Present:
    """Kept by Numba beside a user's compiled code with an update inside: that this very update is here, too.

    Unpickling it raises what Numba takes for a file that is gone; the user's function is then compiled anew. Numba's
    key does not know of the update: it looks at the source file of the function and at what it closes over.
    """

    def __init__(self, contents: str) -> None:
        self._contents = contents

    def __call__(self) -> None:
        """Do nothing: Numba calls it after loading."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Present) and other._contents == self._contents

    def __hash__(self) -> int:
        return hash(self._contents)

    def __reduce__(self) -> tuple[Any, ...]:
        return _find, (self._contents,)


def _find(contents: str) -> Present:
    if contents not in present:
        raise FileNotFoundError(f"no update with the digest {contents} was made in this process")
    return Present(contents)


class KernelCache:
    """What Numba asks for the machine code of a function, and hands it to. Neither ever fails.

    Loading does not first set up everything that compiling would need, which is most of the time from starting a
    process to its first step (about 0.1 s of 0.13 s; with SciPy installed 0.2 s of 0.23 s).
    """

    def __init__(self, name: str, digest: str) -> None:
        self._name, self._digest = name, digest
        self._known = not digest.startswith(UNKNOWN)

    @property
    def cache_path(self) -> str:
        """The folder that comes first, for Numba's statistics."""
        return str(folders()[0])

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled function for a signature, or None."""
        if not self._known:
            return None
        rtsys.initialize(target_context)  # what kernels are linked against
        file = self._file(sig, target_context.codegen())
        for folder in folders():
            try:
                return CompileResult._rebuild(target_context, *_read(folder / file))
            except Exception:  # noqa: BLE001, S112  whatever it is, the kernel is compiled instead
                continue
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the compiled function for a signature."""
        if not self._known or data.library.has_dynamic_globals:
            return
        try:
            _write(self._file(sig, data.codegen), dumps(data._reduce()))
        except Exception as error:  # noqa: BLE001  no step must fail for it
            _note(error)

    def _file(self, sig: Any, codegen: Any) -> str:
        versions = (numba.__version__, llvmlite.__version__, sys.implementation.cache_tag)
        settings = [getattr(numba.config, name, None) for name in _SETTINGS]
        key = repr((self._digest, str(sig), codegen.magic_tuple(), versions, settings))
        return f"{self._name}-{hashlib.sha256(key.encode()).hexdigest()[:32]}.nbc"


def _read(file: Path) -> Any:
    contents = file.read_bytes()
    start = len(_MAGIC) + hashlib.sha256().digest_size
    payload = contents[start:]
    if contents[:start] != _MAGIC + hashlib.sha256(payload).digest():
        raise ValueError(f"{file} is damaged")
    return pickle.loads(payload)  # noqa: S301  it is code, as a .pyc file is


def _write(file: str, payload: bytes) -> None:
    contents = _MAGIC + hashlib.sha256(payload).digest() + payload
    failed: OSError | None = None
    for folder in folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            temporary = folder / f"{file}.{os.urandom(8).hex()}.tmp"
            try:
                temporary.write_bytes(contents)
                temporary.replace(folder / file)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        except OSError as error:
            failed = failed or error
        else:
            return
    assert failed is not None
    raise failed


def _note(error: BaseException | None) -> None:
    global problem
    if problem is None:
        problem = str(error) or type(error).__name__


def find_problem() -> str | None:
    """Return why new kernels cannot be kept on disk, or None; looked for once."""
    global _checked
    if not _checked:
        _checked = True
        failed: OSError | None = None
        for folder in folders():
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder):
                    return problem
            except OSError as error:
                failed = failed or error
        _note(failed)
    return problem


def warn_if_useless() -> None:
    """Warn, once and in the caller's line, if no folder has kernels or could keep them. Not for use within a step."""
    global _warned
    if _warned or find_problem() is None or any(map(_has_kernels, folders())):
        return
    _warned = True
    warnings.warn(
        f"fastopt cannot keep compiled kernels on disk, so each process compiles them anew ({problem}); set "
        "NUMBA_CACHE_DIR to a writable folder",
        RuntimeWarning,
        stacklevel=_level_outside(),
    )


def _has_kernels(folder: Path) -> bool:
    """Say whether there are kernels to be read, made by somebody else."""
    try:
        return next(folder.glob("*.nbc"), None) is not None
    except OSError:
        return False


def _level_outside() -> int:
    """Return the `stacklevel` that names the first line outside of this package."""
    level, frame, own = 1, sys._getframe(1), __name__.partition(".")[0]
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == own:
        level, frame = level + 1, frame.f_back
    return level
