"""``python -m fastopt``: the article's four runs, then the speed of every optimizer on this machine."""

from __future__ import annotations

import sys

from ._bench.command_line import main

if __name__ == "__main__":
    sys.exit(main())
