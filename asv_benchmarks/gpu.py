"""Check and measure fastopt on a GPU, then the CPU beside it, in one call; for README.md.

``python asv_benchmarks/gpu.py --json asv_benchmarks/results/gpu.json --plot docs/gpu.png``

First every storage is compared with the CPU's bits. Then Adam and its baselines (PyTorch, CuPy, Optax: whatever is
installed) are timed in turn by CUDA events: one array of 2^10 to 2^30 elements, the tensors of real models, 1000 small
ones; then every storage, the time that the host spends on a step, every optimizer beside a copy of as many bytes, and
Adam on the CPU in every storage at one to all threads. The whole takes `--seconds` at most: what there is no time for
is left out, and named. Figures are written after each part. `--simulate` runs all of it in Numba's simulator, without a
GPU: that tells nothing about speed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PARTS = ("checks", "sizes", "models", "many", "storages", "host", "roofline", "cpu")
#: Up to which part of the time each part may begin another case.
UNTIL = {
    "checks": 0.25,
    "sizes": 0.55,
    "models": 0.65,
    "many": 0.7,
    "storages": 0.8,
    "host": 0.85,
    "roofline": 0.88,
    "cpu": 0.96,
}
LOG2 = (10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulate", action="store_true", help="in Numba's simulator, where there is no GPU")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seconds", type=float, default=480, help="for everything (default 480)")
    parser.add_argument("--each", type=float, default=1.5, help="for measuring each case (default 1.5)")
    parser.add_argument("--log2", nargs="+", type=int, default=LOG2, help="of the sizes (default 10 to 30)")
    parser.add_argument("--large", type=int, default=26, help="log2 of the size of all storages (default 26)")
    parser.add_argument("--storages", nargs="+", metavar="NAME", default=[], help="some, beside float32 (default all)")
    parser.add_argument("--tensors", type=int, default=1000, help="of 64 elements (default 1000)")
    parser.add_argument("--models", nargs="*", help="by name (default all)")
    parser.add_argument("--check", nargs="+", default=["Momentum", "Adam"], help="optimizers whose bits are compared")
    parser.add_argument("--check-sizes", nargs="+", type=int, default=[70_001, 4097, 1, 1025])
    parser.add_argument("--json", metavar="FILE", help="write the figures, after each part")
    parser.add_argument("--plot", metavar="FILE", help="draw them, if matplotlib is installed")
    return parser.parse_args()


class Clock:
    """How much time is left."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.begin = seconds, time.perf_counter()
        self.left_out: list[str] = []

    def gone(self) -> float:
        return time.perf_counter() - self.begin

    def allows(self, part: str, case: str) -> bool:
        """Say whether a part may begin a case; note it if not."""
        if self.gone() < UNTIL[part] * self.seconds:
            return True
        self.left_out.append(f"{part}: {case}")
        print(f"{part}: {case}: left out: {self.gone():.0f} s are gone", flush=True)
        return False


def chosen(given: argparse.Namespace) -> dict[str, Any]:
    """Return the storages that are measured, by name; what is relative is so to float32."""
    from fastopt._bench import storages

    names = ["float32", *given.storages] if given.storages else storages.MEASURED
    return {name: storages.MEASURED[name] for name in names}


def checks(given: argparse.Namespace, clock: Clock) -> Iterator[dict[str, Any]]:
    """Compare every storage with the CPU's bits."""
    from fastopt._bench import storages

    for optimizer in given.check:
        for name, storage in chosen(given).items():
            if clock.allows("checks", f"{optimizer}, {name}"):
                different = storages.differing(optimizer, storage, given.check_sizes)
                said = f"DIFFERENT BITS (bytes by array): {different}" if different else "the CPU's bits"
                print(f"{optimizer}, {name}: {said}", flush=True)
                yield {"optimizer": optimizer, "storage": name, "different": dict(different)}


def compared(part: str, cases: list[tuple[str, list[list[int]]]], given: Any, clock: Clock, absent: Any) -> Any:
    """Measure Adam and its baselines."""
    from fastopt._bench import gpu, run

    for case, shapes in cases:
        needed, there = gpu.least(sum(map(math.prod, shapes))), gpu.device.room()
        if needed > there:
            print(f"{case}: left out: it needs {needed / 2**30:.0f} GiB, {there / 2**30:.0f} are free")
            clock.left_out.append(f"{part}: {case}")
        elif clock.allows(part, case):
            for row in run.compare(case, shapes, list(gpu.PEERS), given.each, absent, gpu.MACHINE):
                wrong = "" if row.right else "  WRONG"
                speed = run.BYTES.moved * row.elements / row.seconds / 1e9
                print(f"{case:24} {row.peer:16} {row.seconds * 1e6:11.2f} µs {speed:7.3g} GB/s", end="")
                print(f" {row.ratio:6.2f}{wrong}", flush=True)
                yield row._asdict()


def sizes(given: argparse.Namespace, clock: Clock, absent: Any) -> Iterator[Any]:
    return compared("sizes", [(f"{2**k:_}", [[2**k]]) for k in given.log2], given, clock, absent)


def models(given: argparse.Namespace, clock: Clock, absent: Any) -> Iterator[Any]:
    from fastopt._bench import run

    known = run.models()
    wanted = known if given.models is None else given.models
    return compared("models", [(name, known[name]) for name in wanted], given, clock, absent)


def many(given: argparse.Namespace, clock: Clock, absent: Any) -> Iterator[Any]:
    return compared("many", [(f"{given.tensors} x 64", [[64]] * given.tensors)], given, clock, absent)


def in_storages(given: argparse.Namespace, clock: Clock) -> Iterator[dict[str, Any]]:
    """Measure Adam in every storage, beside a copy of as many bytes and PyTorch's fused float32 Adam."""
    from fastopt import Adam
    from fastopt._bench import device, gpu, peers, run, storages
    from fastopt._bench import measure as _measure

    count = 2**given.large
    plain = run.numbers([[count]])
    for name, storage in chosen(given).items():
        if not clock.allows("storages", name):
            continue
        params, grads = storages.in_storage(storage, *plain)
        optimizer = Adam(gpu.on_device(params), **storage.options)
        optimizer.bind(gpu.on_device(grads))
        moved = _measure.bytes_of(storage.codecs()).moved
        functions: dict[str, Callable[[], object]] = {"fastopt": optimizer.step}
        functions["copy"] = device.Copy(round(moved * count))
        try:
            functions["PyTorch fused"], _ = gpu.torch_fused(*plain)
        except peers.MissingPeerError as reason:
            print(f"PyTorch fused: not measured: {reason}")
        for function in functions.values():
            function()
        taken = _measure.times(functions, rounds=300, seconds=given.each, turn=run.TURN, call=device.call)
        row = {"storage": name, "elements": count, "bytes": moved}
        row["ms"] = statistics.median(taken["fastopt"]) * 1e3
        row["gb_per_s"] = moved * count / row["ms"] / 1e6
        row["of_copy"] = _measure.ratio(taken["copy"], taken["fastopt"])
        row["torch_ratio"] = _measure.ratio(taken["PyTorch fused"], taken["fastopt"]) if len(taken) > 2 else None
        beside = "" if row["torch_ratio"] is None else f", PyTorch fused float32 / this {row['torch_ratio']:.2f}"
        print(f"{name:40} {moved:5.2f} B {row['ms']:8.3f} ms, {row['of_copy']:.2f} of a copy{beside}", flush=True)
        yield row
        del optimizer, functions
        gpu.release()


def host(given: argparse.Namespace, clock: Clock) -> Iterator[dict[str, Any]]:
    """Measure what the host spends on a step, the GPU's queue never full; fastopt also with each library's arrays."""
    from fastopt import Adam
    from fastopt._bench import device, gpu, peers, run
    from fastopt._bench import measure as _measure

    for case, shapes in (("64", [[64]]), (f"{given.tensors} x 64", [[64]] * given.tensors)):
        if not clock.allows("host", case):
            continue
        params, grads = run.numbers(shapes)
        functions: dict[str, Callable[[], object]] = {}
        for name, peer in gpu.PEERS.items():
            try:
                functions[name], _ = run.start(peer, params, grads)
            except peers.MissingPeerError as reason:
                print(f"{name}: not measured: {reason}")
        for library in ("numba-cuda", "torch", "cupy"):
            try:
                p, g = gpu.on_device(params, library), gpu.on_device(grads, library)
            except peers.MissingPeerError:
                continue
            if library == "torch" and given.simulate:  # those are on the CPU
                continue
            optimizer = Adam(p)
            optimizer.step(g)
            functions[f"fastopt, arrays of {library}"] = lambda optimizer=optimizer, g=g: optimizer.step(g)
        taken = _measure.times(functions, rounds=100, seconds=given.each, call=lambda f, _: device.host(f, 10))
        for name, times in taken.items():
            print(f"host, {case:12} {name:32} {statistics.median(times) * 1e6:9.1f} µs", flush=True)
            yield {"case": case, "peer": name, "us": statistics.median(times) * 1e6}


def roofline(given: argparse.Namespace, clock: Clock) -> Iterator[dict[str, Any]]:
    """Measure every optimizer beside a copy of as many bytes."""
    from fastopt._bench import gpu

    if clock.allows("roofline", "all optimizers"):
        for speed in gpu.roofline(2**given.large, seconds=given.each):
            fraction = f"{speed.streaming_fraction:.2f} of a copy"
            print(f"{speed.optimizer:9} {speed.ms:8.3f} ms {speed.gb_per_s:6.0f} GB/s, {fraction}", flush=True)
            yield speed._asdict()


def on_cpu(given: argparse.Namespace, clock: Clock) -> Iterator[dict[str, Any]]:
    """Measure Adam on the CPU in every storage of float32 arithmetic, at one to all threads, beside streaming."""
    import numba

    from fastopt import Adam
    from fastopt._bench import measure as _measure
    from fastopt._bench import run, storages
    from fastopt._engine import threads as _threads

    most, count = _threads.budget(), 2**given.large
    plain, functions, moved = run.numbers([[count]]), {}, {}
    for name, storage in chosen(given).items():
        if storage.param != "float64" and clock.allows("cpu", name):
            params, grads = storages.in_storage(storage, *plain)
            optimizer = Adam(params, **storage.options)
            optimizer.bind(grads)
            optimizer.step()
            functions[name], moved[name] = optimizer.step, _measure.bytes_of(storage.codecs()).moved
            if name == "float32":
                functions["streaming"], moved["streaming"] = _measure.streaming(optimizer), moved[name]
                functions["streaming"]()
    try:
        for threads in sorted({1, 2, 4, 8, 16, 32, 64, most // 2, most} & set(range(1, most + 1))):
            if not functions or not clock.allows("cpu", f"{threads} threads"):
                continue
            numba.set_num_threads(threads)
            taken = _measure.times(functions, rounds=30, seconds=2 * given.each)
            per_core = moved["streaming"] * count / statistics.median(taken["streaming"]) / threads / 1e9
            for name, times in taken.items():
                row = {"threads": threads, "storage": name, "bytes": moved[name], "elements": count}
                row |= {"ms": statistics.median(times) * 1e3, "gb_per_s_and_core": per_core}
                row["float32_ratio"] = _measure.ratio(taken["float32"], times)
                yield row
                print(f"CPU, {threads:2} threads ({per_core:5.1f} GB/s a core) {name:40} {row['ms']:8.2f} ms", end="")
                print(f", float32 / this {row['float32_ratio']:.2f}", flush=True)
    finally:
        numba.set_num_threads(most)


def main() -> int:
    given = parsed()
    if given.simulate:
        os.environ["NUMBA_ENABLE_CUDASIM"] = "1"  # read when Numba is loaded
    from fastopt._bench import device, run

    clock = Clock(given.seconds)
    missing = device.missing()
    if missing and set(given.parts) != {"cpu"}:
        print(f"no GPU can be measured here: {missing}\n(--parts cpu needs none, --simulate runs all)", file=sys.stderr)
        return 2
    machine = run.header(run.set_threads(None)) | {"device": "cuda", "cpus": os.cpu_count()}
    print("\n".join(f"{name}: {value}" for name, value in machine.items()), flush=True)
    result: dict[str, Any] = {"machine": machine, "absent": {}, "left_out": clock.left_out, "seconds": {}}
    absent = result["absent"]
    measure = {
        "checks": lambda: checks(given, clock),
        "sizes": lambda: sizes(given, clock, absent),
        "models": lambda: models(given, clock, absent),
        "many": lambda: many(given, clock, absent),
        "storages": lambda: in_storages(given, clock),
        "host": lambda: host(given, clock),
        "roofline": lambda: roofline(given, clock),
        "cpu": lambda: on_cpu(given, clock),
    }
    for part in PARTS:
        if part in given.parts:
            print(f"== {part}, after {clock.gone():.0f} s", flush=True)
            begin = clock.gone()
            result[part] = list(measure[part]())
            result["seconds"][part] = clock.gone() - begin
            if given.json:
                Path(given.json).write_text(json.dumps(result, indent=1) + "\n")
    for name, reason in absent.items():
        print(f"{name}: not measured: {reason}")
    rows = [row for part in ("sizes", "models", "many") for row in result.get(part, [])]
    if given.plot and rows:
        draw({"machine": machine, "rows": rows}, given.plot)
    wrong = [row for row in rows if row["error"] > run.TOLERANCE]
    different = [row for row in result.get("checks", []) if row["different"]]
    print(f"{len(result.get('checks', []))} checks, {len(different)} with different bits; {len(wrong)} wrong results")
    print(f"left out: {len(clock.left_out)}; {clock.gone():.0f} s")
    return int(bool(wrong or different))


def draw(figures: dict[str, Any], file: str) -> None:
    for package in ("matplotlib", "rich"):
        if importlib.util.find_spec(package) is None:
            print(f"no picture: {package} is not installed; asv_benchmarks/tables.py draws it from the figures")
            return
    from fastopt._bench import report

    report.plot(figures, file)
    print(f"wrote {file}")


if __name__ == "__main__":
    sys.exit(main())
