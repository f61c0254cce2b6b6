"""What the arguments of both commands mean."""

from __future__ import annotations

import argparse

from . import measure

# NumPy's arrays have no more elements.
_MOST = 2**60


def size(text: str) -> int:
    """Return the number that `text` stands for: 1000, 2^24 or 2**24."""
    base, power, exponent = text.replace("**", "^").partition("^")
    try:
        number, times = int(base), int(exponent) if power else 1
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number such as 1000000 or 2^24, got {text!r}") from None
    # Looked at before it is raised to that power, which may take all there is of memory and time.
    if not (1 <= number <= _MOST and 0 <= times <= 60) or (number := number**times) > _MOST:
        raise argparse.ArgumentTypeError(f"must be from 1 to 2^60, got {text!r}")
    return number


def check_room(parser: argparse.ArgumentParser, elements: int, arrays: int, itemsize: int) -> None:
    """Exit with a message if so many arrays of so many elements are more than the machine has memory for."""
    needed, there = elements * arrays * itemsize, measure.memory()
    if needed > there:
        parser.error(
            f"{elements:_} elements take {needed / 2**30:_.1f} GiB of memory; this machine has {there / 2**30:.1f}"
        )
