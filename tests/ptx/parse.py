"""PTX as functions of basic blocks. What is not understood is a :class:`KernelError` that quotes it."""

import itertools
import re
from dataclasses import dataclass, field

from .memory import KernelError

#: Bytes of each type; `pred` is one bit, kept as a boolean.
SIZES = {"pred": 1} | {f"{kind}{8 * n}": n for n in (1, 2, 4, 8) for kind in "bus"} | {"f16": 2, "f32": 4, "f64": 8}
#: What ends a basic block.
CONTROL = {"bra", "bra.uni", "ret", "bar.sync", "barrier.sync"}

_DIRECTIVE = re.compile(r"\.(version|target|address_size)[^\n]*")
_FUNCTION = re.compile(r"(?:\.(?:visible|weak|extern)\s+)*\.(entry|func)\s*(\([^)]*\))?\s*([\w$]+)\s*(\([^)]*\))?\s*")
_TUNING = re.compile(r"\.(maxntid|minnctapersm|reqntid|maxnreg|noreturn)[^\n;{]*\s*")
_PARAMETER = re.compile(r"\.param\s+(?:\.align\s+\d+\s+)?\.(\w+)\s+([\w$]+)")
_SHARED = re.compile(r"(?:\.(?:visible|weak)\s+)*\.shared\s+\.align\s+(\d+)\s+\.(\w+)\s+([\w$]+)\[(\d+)\]")
_GLOBAL = re.compile(r"(?:\.(?:visible|weak|common)\s+)*\.global\s+\.align\s+\d+\s+\.\w+\s+[\w$]+(?:\[\d+\])?")
_LABEL = re.compile(r"([\w$]+):")
_REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+(.*)")
_RANGE = re.compile(r"(%\w+?)<(\d+)>")
_INSTRUCTION = re.compile(r"(?:@(!?)(%\w+)\s+)?([a-z][\w.:]*)\s*(.*)")
_NAME = re.compile(r"[%$]?[A-Za-z_][\w$]*")


@dataclass
class Instruction:
    op: str
    operands: list[str]
    text: str
    #: The predicate without which it is not executed, and whether it must be false.
    guard: tuple[str, bool] | None = None


@dataclass
class Function:
    name: str
    entry: bool
    parameters: list[str] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    #: Types by name: registers, and the parameters and results of this function and of those that it calls.
    variables: dict[str, str] = field(default_factory=dict)
    blocks: list[list[Instruction]] = field(default_factory=lambda: [[]])
    #: The basic block that begins at a label.
    labels: dict[str, int] = field(default_factory=dict)

    def instructions(self):
        return itertools.chain.from_iterable(self.blocks)


def split(text):
    """Return what commas divide, but for those in brackets."""
    return [part.strip() for part in re.findall(r"(?:\{[^}]*\}|\([^)]*\)|\[[^\]]*\]|[^,{(\[])+", text)]


class Module:
    """The functions of a text, and where its variables lie in shared memory.

    Attributes
    ----------
    functions : dict of str to Function
    shared : dict of str to int
        Offsets in shared memory.
    shared_size : int
        Bytes of shared memory of a block.
    """

    def __init__(self, text):
        self.functions, self.shared, self.shared_size = {}, {}, 0
        self._text = re.sub(r"//[^\n]*", "", text.replace("\0", ""))
        self._at = 0
        while not self._ended():
            if self._take(_DIRECTIVE):
                continue
            if found := self._take(_FUNCTION):
                self._function(*found.groups())
            else:
                self._declare_variable(self._until(";"))

    def entry(self):
        (entry,) = (f for f in self.functions.values() if f.entry)
        return entry

    # The text, from where it was read to

    def _ended(self):
        self._at = re.compile(r"\s*").match(self._text, self._at).end()
        return self._at == len(self._text)

    def _take(self, pattern):
        found = pattern.match(self._text, self._at)
        if found:
            self._at = found.end()
        return found

    def _until(self, character):
        stop = self._text.find(character, self._at)
        if stop < 0:
            raise KernelError(f"not understood: {self._text[self._at : self._at + 80].strip()!r}")
        text, self._at = self._text[self._at : stop], stop + 1
        return " ".join(text.split())

    # What it holds

    def _declare_variable(self, text):
        if _GLOBAL.fullmatch(
            text
        ):  # without it numba-cuda's modules are not complete; who uses one names what is unknown
            return
        found = _SHARED.fullmatch(text)
        if not found:
            raise KernelError(f"variable not understood: {text[:200]!r}")
        align, kind, name, count = found.groups()
        self.shared_size = -(-self.shared_size // int(align)) * int(align)
        self.shared[name] = self.shared_size
        self.shared_size += SIZES[kind] * int(count)

    def _function(self, kind, results, name, parameters):
        function = Function(name, kind == "entry")
        for text, names in ((results, function.results), (parameters, function.parameters)):
            for part in split((text or "").strip("()")):
                found = _PARAMETER.fullmatch(part)
                if not found:
                    raise KernelError(f"parameter not understood: {part!r}")
                function.variables[found[2]] = found[1]
                names.append(found[2])
        while self._take(_TUNING):
            pass
        self._ended()
        if self._take(re.compile(";")):  # announced, and defined further below
            return
        if not self._take(re.compile(r"\{")):
            raise KernelError(f"body of {name} not understood")
        self._body(function)
        self.functions[name] = function

    def _body(self, function):
        fresh, scopes = itertools.count(), [{}]
        while scopes:
            self._ended()
            if self._take(re.compile(r"\{")):
                scopes.append({})
            elif self._take(re.compile(r"\}")):
                scopes.pop()
            elif found := self._take(_LABEL):
                if function.blocks[-1]:
                    function.blocks.append([])
                function.labels[found[1]] = len(function.blocks) - 1
            else:
                self._statement(function, self._until(";"), scopes, fresh)

    def _statement(self, function, text, scopes, fresh):
        def declare(name, kind):
            """Give a name of an inner scope one of its own."""
            own = name if len(scopes) == 1 else f"{name}~{next(fresh)}"
            scopes[-1][name] = own
            function.variables[own] = kind

        if found := _REGISTERS.fullmatch(text):
            for item in split(found[2]):
                many = _RANGE.fullmatch(item)
                for name in [f"{many[1]}{k}" for k in range(int(many[2]))] if many else [item]:
                    declare(name, found[1])
        elif found := _PARAMETER.fullmatch(text):
            declare(found[2], found[1])
        elif text.startswith(".shared"):
            self._declare_variable(text)
        elif text.startswith(".pragma"):
            return
        elif found := _INSTRUCTION.fullmatch(text):

            def own(name):
                return next((scope[name] for scope in reversed(scopes) if name in scope), name)

            negated, predicate, op, rest = found.groups()
            operands = split(_NAME.sub(lambda word: own(word[0]), rest))
            guard = (own(predicate), bool(negated)) if predicate else None
            function.blocks[-1].append(Instruction(op, operands, text, guard))
            if op in CONTROL:
                function.blocks.append([])
        else:
            raise KernelError(f"not understood: {text!r}")
