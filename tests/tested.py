"""Make the table of all optimizers in all storages on all targets: take a few steps of each, and check them.

On the CPU against NumPy's expressions and what the formats of a storage may leave out; in Numba's simulator and in
executed PTX against the bits of the CPU. What fails is written down, and the next one tried. What a file of results
has of the same sources, on the same processor, is not tried again: a run that was stopped goes on.
"""

import argparse
import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fastopt._arrays import driver
from fastopt._bench.catalog import OPTIMIZERS
from fastopt._bench.storages import STORAGES

from . import bounds
from .cases import FEW_STORAGES, assert_same_bits_but_for_nan, dtype_of, random
from .documents import ROOT, load_script
from .expressions import expression
from .ptx import check
from .ptx.device import Device, forget

PASSED, FAILED, NOT_POSSIBLE = OUTCOMES = ("passed", "failed", "not possible")
#: Nothing, one, less than a register, and more than a block of 8-bit codes.
SIZES = (0, 1, 7, 1025)
#: Elements that are not aligned, and several chunks.
LAYOUTS = (check.LAYOUTS[1], check.LAYOUTS[4])
#: What of a machine results depend on, as the header of figures names it.
DEPENDS_ON = ("python", "numpy", "numba", "llvm", "cpu", "numba-cuda")


def given(hyper, grad, compute):
    """Return what an optimizer makes of a gradient before its equation."""
    grad = grad.astype(compute)
    if scale := hyper.get("grad_scale"):
        grad = grad * grad.dtype.type(1 / scale)
    most = hyper.get("clip_value")
    return grad if most is None else np.clip(grad, -most, most)


def check_on_the_cpu(name, storage, size):
    """Take three steps; each from what the one before left, as it is decoded."""
    hyper = check.SETTINGS[name]
    p = random(size, np.float32, 1).astype(dtype_of(storage.param))
    opt = OPTIMIZERS[name](p, **hyper, **storage.options, seed=check.SEED)
    rows = ("params", *opt.active_states())
    for step in (1, 2, 3):
        grad = random(size, np.float32, 1 + step).astype(dtype_of(storage.grad))
        old = [opt.decoded(row) for row in rows]
        compute = old[0].dtype
        opt.step(grad)
        right = expression(name, old[0], given(hyper, grad, compute), old[1:], step, **hyper)
        for row, exact in zip(rows, right, strict=True):
            new = opt.decoded(row)
            if row == "params":
                allowed = bounds.of_weight(exact, storage.param, compute, storage.rounding, storage.master)
            else:
                allowed = bounds.of_state(exact, storage.states, compute, row in opt.squares)
            if not allowed.any():
                assert_same_bits_but_for_nan([new], [exact])
            off = np.abs(new.astype(np.float64) - exact)
            assert (off <= allowed).all(), f"{row} is off by {np.max(off)} in step {step} of {size} elements"


@contextlib.contextmanager
def cpu():
    yield lambda name, storage: [check_on_the_cpu(name, storage, size) for size in SIZES]


@contextlib.contextmanager
def simulator():
    from .on_device import Numba
    from .simulated import turns
    from .test_gpu import SIZES as SMALL
    from .test_gpu import Twins  # a module that skips itself without a GPU and a simulator

    turns.install()

    def take_steps(name, storage):
        hyper = check.SETTINGS[name] | storage.options | {"seed": check.SEED}
        twins = Twins(Numba(), name, hyper, storage, SMALL)
        for step in (1, 2, 3):
            with np.errstate(all="ignore"):
                twins.step(step, special=step == 2)
            twins.check()

    yield take_steps


@contextlib.contextmanager
def ptx():
    with pytest.MonkeyPatch.context() as patch, Device().install(patch) as device:

        def take_steps(name, storage):
            for layout in LAYOUTS:
                device.reset()
                check.check_against_the_cpu(device, name, storage, layout)

        yield take_steps


TARGETS = {"cpu": cpu, "simulator": simulator, "ptx": ptx}


def why_not(target, name, storage):
    """Return why there is nothing to try, or None."""
    if target == "ptx" and driver.simulated():
        return "the simulator compiles nothing"
    if target == "ptx" and importlib.util.find_spec("numba_cuda") is None:
        return "needs the extra `cuda-check`"
    if "state_dtype" in storage.options:
        method = OPTIMIZERS[name].with_hyperparameters(**check.SETTINGS[name])
        return None if method.active_states() else "it has no states"
    return None


@functools.cache
def sources():
    """Return the files that decide on a result: the package, and in tests/ what is no test by itself."""
    own = [file for file in (ROOT / "tests").rglob("*.py") if not file.name.startswith("test_")]
    return sorted([*(ROOT / "fastopt").rglob("*.py"), *own, ROOT / "tests" / "test_gpu.py"])


def digest(measured):
    found = hashlib.sha256(json.dumps([measured[key] for key in DEPENDS_ON]).encode())
    for file in sources():
        found.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return found.hexdigest()[:16]


class Table:
    """Results, as a file has them.

    For each target and optimizer: for each outcome the names of storages, but for passed ones with a reason; and the
    seconds that all of them took.
    """

    def __init__(self, file):
        self._file = Path(file).absolute()
        measured = load_script("render").measured()
        self.figures = {"measured": measured, "digest": digest(measured), "targets": {}}
        if self._file.exists():
            found = json.loads(self._file.read_text(encoding="utf-8"))
            if found["digest"] == self.figures["digest"]:
                self.figures = found
            else:
                print(f"{file}: of other sources, so all is tried again")

    def row(self, target, name):
        return (
            self.figures["targets"]
            .setdefault(target, {})
            .setdefault(name, {"seconds": 0.0, PASSED: [], FAILED: {}, NOT_POSSIBLE: {}})
        )

    def outcome(self, target, name, storage):
        """Return what is known; what was not possible may be so by now."""
        row = self.figures["targets"].get(target, {}).get(name, {})
        return next((outcome for outcome in (PASSED, FAILED) if storage in row.get(outcome, ())), None)

    def record(self, target, name, storage, outcome, reason, seconds):
        row = self.row(target, name)
        row["seconds"] = round(row["seconds"] + seconds, 2)
        row[NOT_POSSIBLE].pop(storage, None)
        if outcome == PASSED:
            row[PASSED].append(storage)
        else:
            row[outcome][storage] = reason
        self.write()

    def write(self):
        """Replace the file by one that is whole, whenever this process ends."""
        part = self._file.with_name(f"{self._file.name}.part")
        part.write_text(json.dumps(self.figures, indent=1) + "\n", encoding="utf-8")
        part.replace(self._file)


def first_line(error):
    """Return what an error says; of an assertion that says nothing, the line of its code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = lines or [traceback.extract_tb(error.__traceback__)[-1].line or ""]
    return f"{type(error).__name__}: {lines[0]}"


def attempt(take_steps, name, storage):
    """Return the outcome, and its reason."""
    try:
        take_steps(name, storage)
    except Exception as error:  # noqa: BLE001  the table is of these
        return FAILED, first_line(error)
    return PASSED, None


def run(table, target, names, chosen):
    """Try what is not known yet of a target in this process."""
    with contextlib.ExitStack() as stack:
        take_steps = None
        for name in names:
            counts = Counter()
            begun = time.perf_counter()
            for storage in chosen:
                if outcome := table.outcome(target, name, storage.name):
                    counts[f"{outcome} before"] += 1
                    continue
                start = time.perf_counter()
                if reason := why_not(target, name, storage):
                    outcome = NOT_POSSIBLE
                else:
                    take_steps = take_steps or stack.enter_context(TARGETS[target]())
                    outcome, reason = attempt(take_steps, name, storage)
                if outcome == FAILED:
                    print(f"{target}: {name} in {storage.name}: {reason}", flush=True)
                table.record(target, name, storage.name, outcome, reason, time.perf_counter() - start)
                counts[outcome] += 1
            if target == "ptx":
                forget()  # kernels of another optimizer, which hold memory
            said = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
            print(f"{target}: {name}: {said}; {time.perf_counter() - begun:.1f} s", flush=True)


def run_in_the_simulator(names, chosen, file):
    """Do so for the simulator, which a process has or has not from its begin."""
    words = ["--targets", "simulator", "--optimizers", *names, "--storages", *(s.name for s in chosen)]
    command = [sys.executable, "-m", "tests.tested", *words, "--json", str(Path(file).absolute()), "--quiet"]
    subprocess.run(command, check=False, cwd=ROOT, env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"})


def storages_of(words):
    """Return the storages that the option names."""
    if words in (["few"], ["all"]):
        return list((FEW_STORAGES if words == ["few"] else STORAGES).values())
    unknown = [word for word in words if word not in STORAGES]
    if unknown:
        raise SystemExit(f"no such storage: {'; '.join(unknown)}")
    return [STORAGES[word] for word in words]


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m tests.tested", description=__doc__.partition("\n")[0])
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS), metavar="NAME")
    parser.add_argument(
        "--storages", nargs="+", default=["few"], metavar="NAME", help='"few" (default), "all", or some'
    )
    parser.add_argument("--json", metavar="FILE", help="write the results, and go on from those that it has")
    parser.add_argument("--markdown", metavar="FILE", help="write the tables")
    parser.add_argument("--quiet", action="store_true", help=argparse.SUPPRESS)  # no tables at the end
    said = parser.parse_args(arguments)
    chosen = storages_of(said.storages)
    with tempfile.TemporaryDirectory() as folder:
        file = said.json or Path(folder) / "tested.json"
        table = Table(file)
        for target in said.targets:
            if target == "simulator" and not driver.simulated():
                table.write()
                run_in_the_simulator(said.optimizers, chosen, file)
                table = Table(file)
            else:
                run(table, target, said.optimizers, chosen)
        table.write()
    if said.quiet:
        return 0
    render = load_script("render")
    found = {target: render.tested(table.figures, target) for target in table.figures["targets"]}
    print(*found.values(), sep="\n\n")
    if said.markdown:
        text = "\n\n".join(f"## {target}\n\n{made}" for target, made in found.items())
        Path(said.markdown).write_text(text + "\n", encoding="utf-8")
    return verdict(table, itertools.product(said.targets, said.optimizers, chosen))


def verdict(table, triples):
    """Say what was wrong with what was asked for, and return the status to exit with."""
    counts = Counter()
    for target, name, storage in triples:
        row = table.row(target, name)
        counts[next((outcome for outcome in OUTCOMES if storage.name in row[outcome]), "not tried")] += 1
    print(", ".join(f"{counts[outcome]} {outcome}" for outcome in (*OUTCOMES, "not tried")))
    return 1 if counts[FAILED] or counts["not tried"] else 0


if __name__ == "__main__":
    sys.exit(main())
