"""Fresh processes: importing, and the first step with and without compiled kernels on disk."""

import os
import subprocess
import sys
import tempfile

_STEP = "import numpy as np, fastopt; p, g = np.ones((2, {size}), 'f4'); fastopt.Adam(p).step(g)"


def _run(code, cache):
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


class Compile:
    """The first Adam step of a process, import included; 64 elements are serial, 2^17 parallel."""

    params = [64, 2**17]
    param_names = ("size",)
    number = 1
    timeout = 300

    def setup(self, size):
        self.code = _STEP.format(size=size)
        self.warm = tempfile.TemporaryDirectory()
        self.cold = tempfile.TemporaryDirectory()
        _run(self.code, self.warm.name)

    def teardown(self, size):
        self.warm.cleanup()
        self.cold.cleanup()

    def time_cached(self, size):
        _run(self.code, self.warm.name)

    def time_cold(self, size):
        with tempfile.TemporaryDirectory(dir=self.cold.name) as cache:
            _run(self.code, cache)


class ImportTime:
    def timeraw_import(self):
        return "import fastopt"

    def timeraw_import_numba(self):
        return "import numba"
