"""Results of reductions on a GPU: sums, and the largest absolute values beside them."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arrays import driver
from .._arrays.checks import Array
from .._kernels import device_reductions
from . import streams


class Results:
    """So many results, on the GPU that is the current one.

    Attributes
    ----------
    squares, largest : Any
        Where the sums are, and the largest values, as arguments of kernels.
    table : Any
        Where these two addresses are: with it they are reduced in turn.
    """

    def __init__(self, count: int) -> None:
        self._count, self._found = count, driver.copy_of(np.zeros(2 * max(count, 1)))
        self._address = driver.address_of(self._found)
        both = (self._address, self._address + 8 * count)
        self._table = driver.copy_of(np.array(both, np.int64))
        self.squares, self.largest = map(driver.argument, both)
        self.table = driver.argument(driver.address_of(self._table))

    def reduce(self, codec: str, table: Any, chunks: Any, device: int, handle: int) -> None:
        """Have the device reduce to these, in chunks, what is in a codec at the addresses in `table`."""
        if self._count:
            kernel = device_reductions.device_sums(codec, device)
            places = driver.argument(driver.address_of(chunks))
            streams.launch(kernel, self._count, device, handle, table, places, self._count, self.squares, self.largest)

    def read(self, out: Array) -> None:
        """Wait for the device, and take them into [2, results]."""
        driver.copy_to_host(self._address, out)
