"""Numbers that note what a rule does to them, without computing anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

#: Ways through the branches of a rule that are followed.
_MOST_PATHS = 4096
#: Branches on one way.
_MOST_DECISIONS = 1000


class Scalar:
    """A number in a rule."""

    __slots__ = ("_recorder",)
    # NumPy's scalars and arrays leave operations with it to the methods below.
    __array_priority__ = 1000

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __bool__(self) -> bool:
        return self._recorder.decide()

    def __float__(self) -> float:
        raise TypeError(
            f"{self._recorder.owner} calls a function of one Python number: use NumPy's, such as np.sqrt, which "
            "are of arrays, too"
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if method != "__call__" or options:
            raise TypeError(f"{self._recorder.owner} must call np.{ufunc.__name__} with numbers alone")
        result = self._recorder.operate(f"np.{ufunc.__name__}", *inputs)
        return result if ufunc.nout == 1 else (result,) * ufunc.nout

    def __array_function__(self, function: Any, kinds: Any, arguments: Any, options: Any) -> Any:
        hint = ": write a if condition else b" if function is np.where else ", which is not of single numbers"
        raise TypeError(f"{self._recorder.owner} calls np.{function.__name__}{hint}")


def _operator(symbol: str, *, reflected: bool = False) -> Callable[..., Scalar]:
    def apply(self: Scalar, other: Any) -> Scalar:
        pair = (other, self) if reflected else (self, other)
        return self._recorder.operate(symbol, *pair)

    return apply


def _comparing(symbol: str) -> Callable[..., Scalar]:
    def apply(self: Scalar, other: Any) -> Scalar:
        del other  # a comparison has no type that a literal could widen
        return self._recorder.operate(symbol, self)

    return apply


def _raised_to(self: Scalar, exponent: Any) -> Scalar:
    # A whole number as exponent is a product of the base alone.
    operands = (self,) if isinstance(exponent, int) and not isinstance(exponent, bool) else (self, exponent)
    return self._recorder.operate("**", *operands)


def _unary(symbol: str) -> Callable[..., Scalar]:
    return lambda self: self._recorder.operate(symbol, self)


for _symbol, _name in {"+": "add", "-": "sub", "*": "mul", "/": "truediv", "//": "floordiv", "%": "mod"}.items():
    setattr(Scalar, f"__{_name}__", _operator(_symbol))
    setattr(Scalar, f"__r{_name}__", _operator(_symbol, reflected=True))
for _symbol, _name in {"&": "and", "|": "or", "^": "xor"}.items():
    setattr(Scalar, f"__{_name}__", _operator(_symbol))
for _symbol, _name in {"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne"}.items():
    setattr(Scalar, f"__{_name}__", _comparing(_symbol))
for _symbol, _name in {"-": "neg", "+": "pos", "abs": "abs", "~": "invert"}.items():
    setattr(Scalar, f"__{_name}__", _unary(_symbol))
for _name, _method in {"pow": _raised_to, "rpow": _operator("**", reflected=True), "hash": object.__hash__}.items():
    setattr(Scalar, f"__{_name}__", _method)


class _Quantities:
    """What a rule is given as `s`: numbers and flags by name."""

    def __init__(self, recorder: Recorder, values: dict[str, Any]) -> None:
        self.__dict__.update(values)
        self.__dict__["_recorder"] = recorder

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(self._recorder.lacks(name))

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{self._recorder.owner} sets s.{name}: what s holds is the same for all elements")

    def __iter__(self) -> Iterator[Any]:
        raise TypeError(f"{self._recorder.owner} takes s apart by position: use its names, such as s.lr")

    def __getitem__(self, index: Any) -> Any:
        raise TypeError(f"{self._recorder.owner} takes s[{index!r}] by position: use its names, such as s.lr")


class Recorder:
    """Leads a rule, or what norms are taken of, through each of its branches.

    Parameters
    ----------
    owner : str
        What messages call it: the class and the name of the function.
    scalars, flags : tuple of str
        What `s` has.
    """

    def __init__(self, owner: str, scalars: tuple[str, ...], flags: tuple[str, ...]) -> None:
        self.owner, self._scalars, self._flags = owner, scalars, flags
        self._decisions: list[bool] = []
        self._taken = 0

    def paths(self) -> Iterator[Any]:
        """Yield `s`, once for every way through the rule."""
        for _ in range(_MOST_PATHS):
            self._taken = 0
            values: dict[str, Any] = {name: Scalar(self) for name in self._scalars}
            values |= {name: _Flag(self) for name in self._flags}
            yield _Quantities(self, values)
            while self._decisions and not self._decisions[-1]:  # both ways from there were taken
                self._decisions.pop()
            if not self._decisions:
                return
            self._decisions[-1] = False
        raise TypeError(f"{self.owner} has more than {_MOST_PATHS} ways through its branches")

    def decide(self) -> bool:
        """Return which way a branch is taken: all are, one after the other."""
        if self._taken == _MOST_DECISIONS:
            raise TypeError(f"{self.owner} has more than {_MOST_DECISIONS} branches one after the other, or no end")
        if self._taken == len(self._decisions):
            self._decisions.append(True)
        self._taken += 1
        return self._decisions[self._taken - 1]

    def operate(self, operation: str, *operands: Any) -> Scalar:
        """Return the number that an operation makes."""
        for operand in operands:
            if not isinstance(operand, Scalar):
                raise TypeError(
                    f"{self.owner} has {operand!r} in an operation {operation}, which would be done in float64 "
                    "whatever the arrays are: return such a number from scalars, and write s.<its name>"
                )
        return Scalar(self)

    def lacks(self, name: str) -> str:
        """Return what to say of a name that `s` has not."""
        flags = f"; flags: {', '.join(self._flags)}" if self._flags else ""
        return f"{self.owner} uses s.{name}; the scalars are {', '.join(self._scalars)}{flags}"


class _Flag:
    """A flag of a rule: it has one value in one kernel, here each in turn."""

    __slots__ = ("_recorder", "_value")

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._value: bool | None = None

    def __bool__(self) -> bool:
        if self._value is None:
            self._value = self._recorder.decide()
        return self._value

    def __repr__(self) -> str:
        return "<a flag>"
