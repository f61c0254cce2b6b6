"""What differs between the CPU, a GPU and the simulator of one, for :mod:`fastopt._kernels.access`.

Everything else that loops do with memory is written once, as *bodies*: ``body(b, *operands)``, in the operations of an
LLVM IR builder. Operands and results are values of LLVM's, and Python lists where loops have tuples. A target makes of
a body what its loops call: an intrinsic or, for the simulator, where loops are plain Python on host memory, a function
that runs the same body with a builder that computes at once.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types as cpu_types
from numba.extending import intrinsic as cpu_intrinsic
from numba.extending import register_jitable

from .._storage import evaluator, float16
from .._storage.codecs import INT32
from .parts import part

#: The type of a result: that of a number, by name; a tuple of types; or None, where there is none.
Shape = Any


class Target(NamedTuple):
    """What differs.

    Attributes
    ----------
    name : str
    function : callable
        ``function(body, contents, operands, result)``: what loops call. `contents` says what is in it, in words that
        nothing else has (:mod:`fastopt._kernels.symbols` goes by them); `operands` are the types that numbers are
        converted to, by the names of the operands they are or, in tuples of any shape, stand in, or None where a
        number stays as it is; `result` is a :data:`Shape`.
    rule : callable
        ``rule(rule)``: a Python function for use in loops.
    space : int
        The address space of pointers.
    vectors : bool
        Whether several elements are moved as a vector, aligned as a whole: one instruction of a GPU. Otherwise they
        are integers and moved as a wider one, aligned as each is: LLVM packs a loop of those, but none of vectors.
    scopes : bool
        Whether LLVM is told which of a tensor's arrays an instruction is in.
    """

    name: str
    function: Callable[[Any, str, dict[str, str | None], Shape], Any]
    rule: Callable[..., Any]
    space: int
    vectors: bool
    scopes: bool

    def read(
        self, b: Any, address: Any, element: Any, i: Any, lanes: int = 1, array: tuple[int, int] | None = None
    ) -> list[Any]:
        """Return so many elements from element `i` on; `array`: in which of how many arrays of a tensor."""
        pointer, align = self._pointer(b, address, element, i, lanes)
        whole = b.load(pointer, align=align)
        self._annotate(b, whole, array)
        if lanes == 1:
            return [whole]
        if self.vectors:
            return [b.extract_element(whole, INT32(k)) for k in range(lanes)]
        return [b.trunc(b.lshr(whole, whole.type(k * element.width)), element) for k in range(lanes)]

    def write(self, b: Any, parts: list[Any], address: Any, i: Any, array: tuple[int, int] | None = None) -> None:
        """Write as many elements as there are `parts`."""
        element, lanes = parts[0].type, len(parts)
        pointer, align = self._pointer(b, address, element, i, lanes)
        kind = pointer.type.pointee
        if lanes == 1:
            (whole,) = parts
        elif self.vectors:
            whole = ir.Constant(kind, ir.Undefined)
            for k, part in enumerate(parts):
                whole = b.insert_element(whole, part, INT32(k))
        else:
            shifted = (b.shl(b.zext(part, kind), kind(k * element.width)) for k, part in enumerate(parts))
            whole = functools.reduce(b.or_, shifted)
        self._annotate(b, b.store(whole, pointer, align=align), array)

    def _pointer(self, b: Any, address: Any, element: Any, i: Any, lanes: int) -> tuple[Any, int]:
        """Return a pointer to so many elements from element `i` on, and how it is aligned, in bytes."""
        size = evaluator.kind(element).itemsize
        pointer = b.gep(b.inttoptr(address, element.as_pointer(self.space)), [i])
        if lanes == 1:
            return pointer, size
        whole = ir.VectorType(element, lanes) if self.vectors else ir.IntType(lanes * element.width)
        return b.bitcast(pointer, whole.as_pointer(self.space)), lanes * size if self.vectors else size

    def _annotate(self, b: Any, instruction: Any, array: tuple[int, int] | None) -> None:
        if not self.scopes or array is None:
            return
        b.function.attributes.add("noinline")
        number, count = array
        domain = b.module.add_metadata(["fastopt"])
        scopes = [b.module.add_metadata([f"fastopt.{k}", domain]) for k in range(count)]
        instruction.set_metadata("alias.scope", b.module.add_metadata([scopes.pop(number)]))
        instruction.set_metadata("noalias", b.module.add_metadata(scopes))


def room(b: Any, element: Any, count: int) -> Any:
    """Return the address of so many elements in the frame of the function that is being made."""
    with b.goto_entry_block():
        found = b.alloca(ir.ArrayType(element, count))
        found.align = 64
    return b.ptrtoint(found, ir.IntType(64))


def _compiled(intrinsic: Any, types: Any, builder_for: Callable[[Any], Any]) -> Callable[..., Any]:
    """Return what makes intrinsics, by a decorator of Numba's and its types."""

    def type_of(shape):
        if isinstance(shape, tuple):
            return types.Tuple(tuple(map(type_of, shape)))
        return types.none if shape is None else getattr(types, shape)

    def unpacked(context, b, value, kind, wanted):
        if isinstance(kind, types.BaseTuple):
            return [unpacked(context, b, b.extract_value(value, k), part, wanted) for k, part in enumerate(kind)]
        return context.cast(b, value, kind, type_of(wanted)) if wanted else value

    def packed(context, b, found, kind):
        if isinstance(kind, types.BaseTuple):
            return context.make_tuple(b, kind, [packed(context, b, *own) for own in zip(found, kind, strict=True)])
        return context.get_dummy_value() if kind == types.none else found

    def function(body: Any, contents: str, operands: dict[str, str | None], result: Shape) -> Any:
        def codegen(context, b, signature, args):
            each = zip(args, signature.args, operands.values(), strict=True)
            found = body(builder_for(b), *(unpacked(context, b, *own) for own in each))
            return packed(context, b, found, signature.return_type)

        def typing(typingctx, *given):
            return type_of(result)(*given), codegen

        # Numba takes the arguments from here: of `given` it would make one tuple.
        names = ("typingctx", *operands)
        typing.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in names]
        )
        typing.__name__, typing.contents = body.__name__, contents  # type: ignore[attr-defined]
        return intrinsic(typing)

    return function


def _evaluated(body: Any, contents: str, operands: dict[str, str | None], result: Shape) -> Callable[..., Any]:
    def unpacked(given, wanted):
        if isinstance(given, tuple):
            return [unpacked(part, wanted) for part in given]
        return evaluator.value(np.dtype(wanted).type(given) if wanted else given)

    def packed(found, shape):
        if isinstance(shape, tuple):
            return tuple(packed(*own) for own in zip(found, shape, strict=True))
        return None if shape is None else found.array.view(shape)[()]

    def function(*given):
        values = map(unpacked, given, operands.values())
        return packed(body(evaluator.Builder(), *values), result)

    return function


def _quiet(rule: Callable[..., Any]) -> Callable[..., Any]:
    def quiet(*arguments: Any) -> Any:
        with np.errstate(all="ignore"):  # as on a device
            return rule(*arguments)

    return quiet


_for_cpu = _compiled(cpu_intrinsic, cpu_types, float16.converting)
CPU = Target("cpu", function=_for_cpu, rule=part, space=0, vectors=False, scopes=True)
SIMULATOR = Target("simulator", function=_evaluated, rule=_quiet, space=1, vectors=True, scopes=False)


@functools.cache
def cuda() -> Target:
    """Return the target that is a GPU."""
    from numba.cuda import types  # loads numba.cuda
    from numba.cuda.extending import intrinsic

    function = _compiled(intrinsic, types, lambda b: b)
    return Target("cuda", function=function, rule=register_jitable, space=1, vectors=True, scopes=False)
