"""Measure where the time of a float32 Adam step goes, at 64, 2^16 and 2^25 elements; for docs/performance.md."""

from __future__ import annotations

import statistics

import numpy as np

import fastopt
from fastopt import _compile, _headers, _measure


def parts(elements: int) -> dict[str, float]:
    """Return the median time in microseconds of a step and of its parts, all measured in turn."""
    p, g = np.ones(elements, np.float32), np.ones(elements, np.float32)
    opt, bound = fastopt.Adam(p), fastopt.Adam(p.copy())
    opt.step(g)
    bound.bind(g.copy())
    (group,) = bound._groups
    group.prepare(spec := bound.plain_spec(p.dtype), values := bound.values(1))
    kernel = _compile.sweep(spec, elements >= fastopt.info()["parallel_from"] and fastopt.info()["threads"] > 1)
    table = group.table.copy()
    table[0] = group.found
    nothing = np.zeros(1, np.int64), group.chunks[:0]  # a launch without a chunk
    check = _compile.gather()
    address = (group.work, group.table, group.fixed, id(np.ndarray), p.dtype.num, p.dtype.itemsize)
    assert check(*address) == _headers.UNSORTED or check(*address) < 0
    functions = {
        "step(grads)": lambda: opt.step(g),
        "step(), bound": bound.step,
        "gradients: structure, identities, check": lambda: opt._read(g),
        "  of which the compiled check": lambda: check(*address),
        "scalars: bias corrections, decay": lambda: bound.values(1),
        "scalars into the kernel's dtype": lambda: group.prepare(bound.plain_spec(p.dtype), values),
        "launch: table, threads, kernel": lambda: group.launch(1),
        "  of which the kernel": lambda: kernel(table, group.items, group.chunks, group.values.array, 1),
        "  of which a kernel without elements": lambda: kernel(table, *nothing, group.values.array, 1),
        "the same bytes, nothing computed": _measure.stream(group),
    }
    taken = _measure.times(functions, rounds=300, seconds=8, turn=1e-3)
    return {name: statistics.median(times) * 1e6 for name, times in taken.items()}


if __name__ == "__main__":
    columns = {elements: parts(elements) for elements in (64, 2**16, 2**25)}
    print(f"| µs | {' | '.join(f'2^{n.bit_length() - 1}' for n in columns)} |\n|---{'|---:' * len(columns)}|")
    for name in columns[64]:
        print(f"| {name.replace('  ', '… ')} | {' | '.join(f'{c[name]:.2f}' for c in columns.values())} |")
