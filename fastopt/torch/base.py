"""What all optimizers here have in common: PyTorch's interface outside, one launch of fastopt's inside."""

from __future__ import annotations

import inspect
import itertools
import operator
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import torch

from .. import optimizers
from .._api.limits import Limited
from .._api.method import Method
from .._arrays.checks import check_integer
from .._storage import formats
from .checkpoint import load
from .clocks import Clocks
from .formulas import Formula, may_change
from .hooks import is_watched, is_wrapped, watched_step
from .memory import FORMATS
from .session import Session
from .shards import check_limits
from .states import Member, Storage

#: How many sets of parameters with gradients are remembered, each with its session.
_REMEMBERED = 8


def _named(state_dtype: Any) -> Any:
    """Return a dtype of PyTorch's, or a mapping of such, as their names."""
    if isinstance(state_dtype, Mapping):
        return {name: _named(own) for name, own in state_dtype.items()}
    return str(state_dtype).removeprefix("torch.") if isinstance(state_dtype, torch.dtype) else state_dtype


class Fused(torch.optim.Optimizer):
    """An optimizer of PyTorch whose step is one pass of fastopt's over all parameters.

    A subclass has the class of PyTorch among its bases, for its constructor and its param groups, and a formula.
    """

    _formula: ClassVar[Formula]
    #: What else is said of the parameters of all groups together.
    _of_all_groups: Mapping[str, Any] = MappingProxyType({})

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        made = next(base for base in cls.__mro__ if "__init__" in vars(base))
        if made is not Fused:  # a class of the user's, with a constructor of its own
            _, *own = inspect.signature(vars(made)["__init__"]).parameters.values()
            cls.__signature__ = inspect.Signature(own)  # type: ignore[attr-defined]
            return
        _, *theirs = inspect.signature(super().__init__).parameters.values()  # those of PyTorch's class
        own = [p for p in inspect.signature(Fused.__init__).parameters.values() if p.kind is p.KEYWORD_ONLY]
        cls.__signature__ = inspect.Signature([*theirs, *own])  # type: ignore[attr-defined]

    def __init__(
        self,
        params: Any,
        *arguments: Any,
        state_dtype: formats.StateDtypes = None,
        rounding: formats.Rounding = "nearest",
        master: formats.Master | None = None,
        seed: int = 0,
        clip_norm: float | None = None,
        nonfinite: str = "propagate",
        **keywords: Any,
    ) -> None:
        state_dtype = _named(state_dtype)
        formats.by_state(state_dtype, [*self._formula.keys.values()], type(self).__name__)
        self._storage = Storage(state_dtype, rounding, master, check_integer("seed", seed, 0))
        self._limits: dict[str, Any] = {**self._of_all_groups, "clip_norm": clip_norm, "nonfinite": nonfinite}
        self._forget()
        super().__init__(params, *arguments, **keywords)
        self._step_supports_amp_scaling = False  # a GradScaler divides gradients itself, and skips steps
        stored = [self._format(p.dtype) for group in self.param_groups for p in group["params"]]
        # ZeroRedundancyOptimizer may have no parameters for a process.
        formats.check_rounding(rounding, master, stored or ["bfloat16"])

    def _format(self, dtype: torch.dtype) -> str:
        """Return the format in which what is updated for parameters of a dtype is stored."""
        return FORMATS.get(dtype, str(dtype))

    def _forget(self) -> None:
        """Let go of all that was made of the groups and the state."""
        self._sessions: dict[Any, Session] = {}
        self._clocks: Clocks | None = None
        self._methods: list[tuple[list[Any], bool, Method]] = []
        if "_lead" not in self.__dict__:
            self._lead: Limited = optimizers.GD._alone({**optimizers.GD.hyperparameters, **self._limits})

    @property
    def grad_norm(self) -> float | None:
        """The norm of all gradients of the last step, where `clip_norm` or `nonfinite` asks for it; or None."""
        return self._lead.grad_norm

    @property
    def skipped(self) -> int:
        """How many steps ``nonfinite="skip"`` left out."""
        return self._lead.skipped

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters that have a gradient, in one pass over memory.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss and the gradients anew, and returns the loss.

        Returns
        -------
        object
            What the closure returned, or None.

        Raises
        ------
        RuntimeError
            If a gradient is sparse, or another process that has shards of the parameters has ended when the norm of all
            gradients is taken.
        TypeError, ValueError
            If a tensor or a hyperparameter is not acceptable; nothing has been written then.
        FloatingPointError
            If a gradient has a NaN or an infinity and `nonfinite` is "raise"; nothing has been written.
        """
        if not is_wrapped(self) and (torch.compiler.is_compiling() or is_watched(self)):
            return watched_step(self) if closure is None else watched_step(self, closure)
        return self._take_step(closure)

    # PyTorch would wrap it, for hooks and profilers, which takes 6 µs, and 100 µs after a step that used up the caches.
    step.hooked = True  # type: ignore[attr-defined]

    def _take_step(self, closure: Callable[[], Any] | None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if torch.compiler.is_compiling():
            self._update_apart()
        else:
            self._update()
        return loss

    @torch._disable_dynamo  # type: ignore[attr-defined,untyped-decorator,unused-ignore]
    def _update_apart(self) -> None:
        """Do as :meth:`_update`, outside of what ``torch.compile`` compiles."""
        self._update()

    def _update(self) -> None:
        groups = self.param_groups
        params = list(itertools.chain.from_iterable(group["params"] for group in groups))
        every: list[Any] = [p.grad for p in params]
        has = bytes([grad is not None for grad in every])
        grads, present = every, params
        if 0 in has:
            grads, present = (list(itertools.compress(own, has)) for own in (every, params))
        if not grads:
            return
        methods = self._methods_now()
        if self._clocks is None or not self._clocks.are_of(params):
            counts = self._storage.rounding == "stochastic" or self._storage.state_dtype is not None
            self._sessions, self._clocks = {}, Clocks(self._formula, params, counts=counts)
        key = (has, *[len(group["params"]) for group in groups])
        session = self._sessions.pop(key, None)
        kernels = [method._kernel_key for method in methods]
        if session is not None and not session.in_place(self._updated(present), self.state):
            self._sessions.clear()  # others may keep alive what is no more
            session = None
        if session is None or session.kernels != kernels or not session.in_step():
            with torch.no_grad():
                session = self._new_session(has, methods)
        try:
            read = self._read(present, grads)
            if session.plain:
                taken = session.step(read, groups, methods, self._lead)
            else:
                with torch.no_grad():
                    taken = session.step(read, groups, methods, self._lead)
        except BaseException:
            session.states.undo()
            raise
        if not taken:
            session.states.undo()
            return
        self._sessions[key] = session  # the last, and the first is that which was not used for longest
        if len(self._sessions) > _REMEMBERED:
            del self._sessions[next(iter(self._sessions))]

    def _new_session(self, has: bytes, methods: list[Method]) -> Session:
        """Return a session for those parameters that have a gradient."""
        assert self._clocks is not None
        members = [Member(g, k, i, p, p, g) for i, (g, k, p) in enumerate(self._places()) if has[i]]
        name = type(self).__name__
        return Session(name, self._formula, self._storage, members, self.state, self._clocks, methods)

    def _places(self) -> list[tuple[int, int, torch.Tensor]]:
        """Return all parameters, each with the number of its group and its place in it."""
        return [(g, k, p) for g, group in enumerate(self.param_groups) for k, p in enumerate(group["params"])]

    def _updated(self, params: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return what is updated in a step of these parameters."""
        return params

    def _read(self, params: list[torch.Tensor], grads: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return what a step of these parameters, which have these gradients, reads."""
        return grads

    def _methods_now(self) -> list[Method]:
        """Return the formula of each group, with its hyperparameters as they are now."""
        formula, known, found = self._formula, self._methods, []
        for g, group in enumerate(self.param_groups):
            now = [group.get(name) for name in formula.watched]
            if not (g < len(known) and all(map(operator.is_, now, known[g][0]))):
                found.append((now, any(map(may_change, now)), formula.method(group, self._limits)))
            elif known[g][1]:
                found.append((now, True, formula.method(group, self._limits)))
            else:
                found.append(known[g])
        self._methods = found
        return [method for _, _, method in found]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with hyperparameters for themselves.

        Parameters
        ----------
        param_group : dict
            ``"params"``, and the hyperparameters that are not the optimizer's.

        Raises
        ------
        TypeError, ValueError
            If it is not acceptable; nothing is added then.
        """
        for name, value in self._settings().items():
            given = param_group.get(name, value)
            if (_named(given) if name == "state_dtype" else given) != value:
                raise TypeError(
                    f"a group has {name}={given!r}, which is for all groups together: give it to the optimizer"
                )
        super().add_param_group(param_group)
        try:
            check_limits(self._limits, self.param_groups[-1])
            self._formula.check_number("lr", self.param_groups[-1])
            self._formula.method(self.param_groups[-1], self._limits)
        except BaseException:
            self.param_groups.pop()
            raise

    def _settings(self) -> dict[str, Any]:
        """Return the arguments that are about all groups: ZeroRedundancyOptimizer puts them into each."""
        return {name: getattr(self._storage, name) for name in ("state_dtype", "rounding", "master", "seed")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint, of this class or of PyTorch's.

        Parameters
        ----------
        state_dict : dict
            What `state_dict` returned. Its tensors are copied.

        Raises
        ------
        ValueError
            If it does not fit the param groups.
        """
        load(self, super().load_state_dict, state_dict)

    def _device_of(self, p: torch.Tensor) -> torch.device | str:
        """Return where the states of a parameter are."""
        return p.device

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle needs."""
        own = {"_storage": self._storage, "_limits": self._limits, "_counted": self.skipped}
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what :meth:`__getstate__` returned, or the state and the groups of a checkpoint."""
        super().__setstate__(state)
        self._forget()
        self._lead.__dict__["_skipped"] = self.__dict__.pop("_counted", self.skipped)
