"""A bound step on the GPU, and what the host spends on it; skipped where there is no GPU."""

import json
from pathlib import Path

import fastopt
from fastopt._bench import device

from .common import DTYPES, OPTIMIZERS, SIZES, arrays


class Step:
    params = (OPTIMIZERS, SIZES, DTYPES)
    param_names = ("optimizer", "size", "dtype")

    def setup(self, name, size, dtype):
        if reason := device.missing():
            raise NotImplementedError(reason)
        from numba import cuda

        self.cuda = cuda
        p, g = (cuda.to_device(a) for a in arrays(size, dtype, 2))
        self.opt = getattr(fastopt, name)(p)
        self.opt.bind(g)
        self.time_step(name, size, dtype)

    def time_step(self, name, size, dtype):
        """Until the GPU is done."""
        self.opt.step()
        self.cuda.synchronize()

    def time_host(self, name, size, dtype):
        """Until the host may go on."""
        self.opt.step()


RECORDED = Path(__file__).parent.parent / "results" / "gpu.json"


def recorded():
    """Return the figures of asv_benchmarks/gpu.py by case and contestant; none where no GPU was measured."""
    if not RECORDED.exists():
        return {}
    result = json.loads(RECORDED.read_text())
    rows = [row for part in ("sizes", "models", "many") for row in result[part]]
    return {(row["case"], row["peer"]): row for row in rows}


class Recorded:
    """Adam and its baselines on the GPU that was lent last, as asv_benchmarks/gpu.py wrote it down."""

    figures = recorded()
    params = (
        list(dict.fromkeys(case for case, _ in figures)) or ["not measured on a GPU"],
        list(dict.fromkeys(peer for _, peer in figures)) or ["nobody"],
    )
    param_names = ("case", "contestant")

    def setup(self, case, peer):
        if (case, peer) not in self.figures:
            raise NotImplementedError("not measured on a GPU")

    def track_time(self, case, peer):
        return self.figures[case, peer]["seconds"]

    track_time.unit = "seconds"

    def track_ratio(self, case, peer):
        return self.figures[case, peer]["ratio"]

    track_ratio.unit = "times fastopt's"
