"""What runs with NUMBA_ENABLE_CUDASIM=1, in a process of its own; tests/test_cuda.py starts it."""

import os

collect_ignore_glob = [] if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1" else ["test_*.py"]
