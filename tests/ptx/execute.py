"""Functions of PTX executed by all threads of a block together: an array for each register, a number for each thread.

Where threads part, those at the lowest basic block go first; they join again where they meet. A barrier waits for all.
"""

import re

import numpy as np

from .arithmetic import OPERATIONS, dtype_of
from .memory import ATOMIC, READ, WRITE, KernelError, Moment, Region, check_alignment, moments
from .parse import CONTROL, SIZES, split

#: Where shared memory begins, in an address space of its own.
SHARED = 1 << 12
#: The bytes of what nothing was written to.
GARBAGE = 0xDB
_ADDRESS = re.compile(r"\[([%$\w~]+)(?:\+(-?\d+))?\]")
_MEMORY = re.compile(r"(ld|st)\.(global|shared)(?:\.v([24]))?\.(\w+)")
_PARAMETER = re.compile(r"(ld|st)\.param\.(\w+)")
_ATOMIC = re.compile(r"atom(?:\.relaxed\.(?:cta|gpu|sys))?\.shared(?:\.cta)?\.max\.([us](?:32|64))")
_FLOAT = {"0f": ("u4", "f32"), "0d": ("u8", "f64")}


def _bits_of(kind):
    """Return NumPy's dtype for the bits of a type, as registers hold them."""
    return np.dtype(bool) if kind == "pred" else np.dtype(f"u{SIZES[kind]}")


class Code:
    """A function whose instructions are Python functions of a :class:`Frame`.

    Attributes
    ----------
    blocks : list of (list of callable, Instruction or None)
        What each basic block does, and the instruction of ``CONTROL`` that ends it.
    """

    def __init__(self, module, function):
        self.function, self._module = function, module
        self.blocks = []
        for block in function.blocks:
            last = block[-1] if block and block[-1].op in CONTROL else None
            if last and last.op.startswith("bra") and last.operands[0] not in function.labels:
                raise KernelError(f"no such label: `{last.text}`")
            steps = [self._step(i) for i in (block[:-1] if last else block)]
            self.blocks.append((steps, last))

    def _step(self, i):
        try:
            step = self._unguarded(i)
        except (KeyError, ValueError, TypeError) as error:
            raise KernelError(f"unknown instruction `{i.text}`: {error!r}") from error
        if i.guard is None:
            return step
        guard = self._truth(i.guard)

        def guarded(frame):
            before = frame.active
            frame.active = before & guard(frame)
            if frame.active.any():
                step(frame)
            frame.active = before

        return guarded

    def _unguarded(self, i):
        if i.op in OPERATIONS and "{" not in i.text:
            return self._operation(i)
        if i.op in ("mov.b32", "mov.b64"):
            return self._pack(i) if i.operands[1].startswith("{") else self._unpack(i)
        if found := _MEMORY.fullmatch(i.op):
            return self._memory(i, *found.groups())
        if found := _PARAMETER.fullmatch(i.op):
            to, given = (re.sub(r"\[([^+\]]+)(\+0)?\]", r"\1", operand) for operand in i.operands)
            value, put = self._value(given, found[2]), self._put(to, found[2])
            return lambda frame: put(frame, value(frame))
        if found := _ATOMIC.fullmatch(i.op):
            return self._atomic_max(i, found[1])
        if i.op == "call.uni":
            return self._call(i)
        raise KernelError(f"unknown instruction {i.op}: `{i.text}`")

    # Operands

    def _value(self, operand, kind):
        """Return the function of a frame that gives an operand as numbers of a type."""
        dtype = dtype_of(kind)
        if operand in self.function.variables:
            held = self.function.variables[operand]
            if SIZES[held] < SIZES[kind] or (held == "pred") != (kind == "pred"):
                raise ValueError(f"{operand} is {held}, not {kind}")
            narrower = f"u{dtype.itemsize}" if SIZES[held] > SIZES[kind] else None

            def register(frame):
                bits = frame.registers.get(operand)
                if bits is None:
                    raise KernelError(f"{operand} is read before it is written")
                return (bits.astype(narrower) if narrower else bits).view(dtype)

            return register
        if operand.startswith("%"):
            special = {"%tid.x": "tid", "%ntid.x": "ntid", "%ctaid.x": "ctaid", "%nctaid.x": "nctaid"}[operand]
            return lambda frame: getattr(frame.launch, special).view(dtype)
        constant = self._constant(operand, kind, dtype)
        return lambda frame: constant

    def _constant(self, operand, kind, dtype):
        if operand[:2] in _FLOAT:
            bits, own = _FLOAT[operand[:2]]
            if kind not in (own, f"b{own[1:]}"):
                raise ValueError(f"{operand} is {own}, not {kind}")
            return np.array([int("0x" + operand[2:], 0)], bits).view(dtype)
        if operand in self._module.shared:
            return np.array([SHARED + self._module.shared[operand]], dtype)
        if kind[0] == "f":
            raise ValueError(f"{operand} is an integer, not {kind}")
        return np.array([int(operand.removesuffix("U"), 0) % 256**dtype.itemsize], f"u{dtype.itemsize}").astype(dtype)

    def _put(self, name, kind):
        """Return the function that gives a register numbers of a type, for the threads that are active."""
        if name == "_":  # for what nobody needs
            return lambda frame, values: None
        held, given = _bits_of(self.function.variables[name]), dtype_of(kind)
        if held.itemsize < given.itemsize:
            raise ValueError(f"{kind} does not fit into {name}")
        narrow = given.itemsize < held.itemsize
        extended = np.dtype(f"{'i' if given.kind == 'i' else 'u'}{held.itemsize}") if narrow else given

        def put(frame, values):
            bits = values.astype(extended, copy=False).view(held)
            before = frame.registers.get(name)
            if before is None:  # others hold anything
                before = np.full(frame.active.size * held.itemsize, GARBAGE, np.uint8).view(held)
            frame.registers[name] = np.where(frame.active, bits, before)

        return put

    def _truth(self, guard):
        value, negated = self._value(guard[0], "pred"), guard[1]
        return (lambda frame: ~value(frame)) if negated else value

    # Instructions

    def _operation(self, i):
        result, kinds, function = OPERATIONS[i.op]
        to, *given = i.operands
        put = self._put(to, result)
        values = [self._value(operand, kind) for operand, kind in zip(given, kinds, strict=True)]
        return lambda frame: put(frame, function(*(value(frame) for value in values)))

    def _pack(self, i):
        whole = f"u{i.op[5:]}"
        parts = split(i.operands[1][1:-1])
        width = int(i.op[5:]) // len(parts)
        values, put = [self._value(part, f"u{width}") for part in parts], self._put(i.operands[0], whole)
        dtype = dtype_of(whole)

        def pack(frame):
            put(frame, sum(v(frame).astype(dtype) << dtype.type(k * width) for k, v in enumerate(values)))

        return pack

    def _unpack(self, i):
        whole = f"u{i.op[5:]}"
        parts = split(i.operands[0][1:-1])
        width = int(i.op[5:]) // len(parts)
        value, puts = self._value(i.operands[1], whole), [self._put(part, f"u{width}") for part in parts]
        dtype, narrow = dtype_of(whole), dtype_of(f"u{width}")

        def unpack(frame):
            bits = value(frame)
            for k, put in enumerate(puts):
                put(frame, (bits >> dtype.type(k * width)).astype(narrow))

        return unpack

    def _address(self, operand):
        base, offset = _ADDRESS.fullmatch(operand).groups()
        value, offset = self._value(base, "u64"), np.uint64(int(offset or 0) % 2**64)
        return lambda frame: np.broadcast_to(value(frame) + offset, frame.active.shape)

    def _memory(self, i, action, space, count, kind):
        count, dtype = int(count or 1), dtype_of(kind)
        size = count * dtype.itemsize
        place, moved = i.operands if action == "st" else i.operands[::-1]
        names = split(moved[1:-1]) if count > 1 else [moved]
        if len(names) != count:
            raise ValueError(f"{len(names)} registers")
        address = self._address(place)

        def load(frame):
            loaded = np.zeros((count, frame.active.size), dtype)
            for region, which, offsets in frame.locate(space, address, size, i.text):
                region.note(offsets, size, READ, frame.moment(which, i.text))
                found = region.content[offsets[:, None] + np.arange(size)].view(dtype)
                loaded[:, which] = found.T
            for put, values in zip(puts, loaded, strict=True):
                put(frame, values)

        def store(frame):
            given = [np.broadcast_to(value(frame), frame.active.shape) for value in values]
            stored = np.stack(given, axis=1)
            for region, which, offsets in frame.locate(space, address, size, i.text):
                region.note(offsets, size, WRITE, frame.moment(which, i.text))
                region.content[offsets[:, None] + np.arange(size)] = stored[which].view("u1")

        if action == "ld":
            puts = [self._put(name, kind) for name in names]
            return load
        values = [self._value(name, kind) for name in names]
        return store

    def _atomic_max(self, i, kind):
        to, place, operand = i.operands
        if any(to in other.operands and other is not i for other in self.function.instructions()):
            raise ValueError("what was there before is used")
        dtype = dtype_of(kind)
        address, value = self._address(place), self._value(operand, kind)

        def atomic(frame):
            given = np.broadcast_to(value(frame), frame.active.shape)
            for region, which, offsets in frame.locate("shared", address, dtype.itemsize, i.text):
                region.note(offsets, dtype.itemsize, ATOMIC, frame.moment(which, i.text))
                np.maximum.at(region.content.view(dtype), offsets // dtype.itemsize, given[which])

        return atomic

    def _call(self, i):
        results, name, given = i.operands
        results, given = split(results[1:-1]), split(given[1:-1])
        called = self._module.functions[name]
        kinds = [called.variables[p] for p in called.parameters]
        values = [self._value(g, kind) for g, kind in zip(given, kinds, strict=True)]
        puts = [self._put(r, self.function.variables[r]) for r in results]

        def call(frame):
            arguments = [np.broadcast_to(value(frame), frame.active.shape) for value in values]
            inner = frame.launch.execute(name, arguments, frame.active)
            for put, result in zip(puts, called.results, strict=True):
                put(frame, inner.registers[result])

        return call


class Frame:
    """The registers of a call, and which threads are active."""

    def __init__(self, launch, registers, active):
        self.launch, self.registers, self.active = launch, registers, active

    def locate(self, space, address, size, text):
        """Yield the regions that the active threads access, which threads, and offsets."""
        threads = np.flatnonzero(self.active)
        addresses = address(self)[threads]
        check_alignment(addresses, size, text)
        if space == "shared":
            shared = self.launch.shared
            offsets = addresses.astype(np.int64) - SHARED
            if offsets.min() < 0 or offsets.max() + size > shared.content.size:
                raise KernelError(f"out of bounds of shared memory: `{text}`")
            yield shared, threads, offsets
            return
        for region, which, offsets in self.launch.memory.locate(addresses, size, text):
            yield region, threads[which], offsets

    def moment(self, threads, text):
        launch = self.launch
        return Moment(launch.number, launch.barrier, launch.block, threads, text)


class Launch:
    """Launches of the kernel of a module.

    Parameters
    ----------
    module : Module
    memory : Memory
        What it may access.
    """

    def __init__(self, module, memory):
        self.module, self.memory = module, memory
        self._codes = {name: Code(module, function) for name, function in module.functions.items()}

    def run(self, arguments, grid, block, order=None):
        """Execute the kernel.

        `arguments` are the bytes of each, `order` is that of the blocks: ascending if it is not given.
        """
        entry = self.module.entry()
        kinds = [entry.variables[name] for name in entry.parameters]
        if [len(a) for a in arguments] != [SIZES[kind] for kind in kinds]:
            raise KernelError(f"arguments of {[len(a) for a in arguments]} bytes for parameters of {kinds}")
        given = [np.full(block, np.frombuffer(a, f"u{len(a)}")[0]) for a in arguments]
        self.number = next(moments)
        self.tid = np.arange(block, dtype="u4")
        self.ntid, self.nctaid = np.array([block], "u4"), np.array([grid], "u4")
        with np.errstate(all="ignore"):
            for self.block in range(grid) if order is None else order:
                self.ctaid = np.array([self.block], "u4")
                self.barrier = next(moments)
                garbage = np.full(self.module.shared_size, GARBAGE, np.uint8)
                self.shared = Region("shared memory", garbage, SHARED, 4)
                self.execute(entry.name, given, np.ones(block, bool))

    def execute(self, name, arguments, active):
        """Execute a function for the active threads; return its frame."""
        code = self._codes[name]
        function = code.function
        frame = Frame(self, dict(zip(function.parameters, arguments, strict=True)), active)
        ready, waiting, ended = {0: active}, {}, False

        def go(groups, at, threads):
            if threads.any():
                groups[at] = groups[at] | threads if at in groups else threads

        while ready or waiting:
            if not ready:
                if len(waiting) > 1 or ended or not function.entry:
                    raise KernelError("not all threads of a block wait at the same barrier")
                ready, waiting = waiting, {}
                self.barrier = next(moments)
            at = min(ready)
            frame.active = threads = ready.pop(at)
            steps, last = code.blocks[at]
            for step in steps:
                step(frame)
            if last is None:
                go(ready, at + 1, threads)
            elif last.op in ("bar.sync", "barrier.sync"):
                if last.operands != ["0"] or last.guard:
                    raise KernelError(f"unknown barrier `{last.text}`")
                go(waiting, at + 1, threads)
            else:
                taken = threads & code._truth(last.guard)(frame) if last.guard else threads
                if last.op == "ret":
                    ended = ended or bool(taken.any())
                else:
                    go(ready, function.labels[last.operands[0]], taken)
                go(ready, at + 1, threads & ~taken)
        return frame
