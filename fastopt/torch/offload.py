"""Parameters on a device or in few bits, with their weights, states and steps in the host's memory."""

from __future__ import annotations

import operator
from typing import Any, Literal

import torch

from .. import optimizers
from .._api.arguments import AROUND
from .._api.groups import OF_ALL_GROUPS
from .._api.method import Method
from .._api.optimizer import Optimizer
from .._arrays.checks import check_integer
from .._storage import formats
from .accepted import LIMITS, REFUSED, TO_ALL, check_checkpoint, check_kind, check_whole
from .base import Fused
from .formulas import Formula, formula_of
from .link import Links
from .memory import FORMATS
from .states import Member
from .weights import MASTER, Apart, Weights


class Offload(Fused):
    """Any of fastopt's optimizers for parameters that are elsewhere or narrower than their weights.

    For each parameter a weight is kept in the host's memory, with the states of the optimizer. Gradients go there while
    backward makes them. One pass updates weights and states, and writes the parameters, rounded to their dtype; on a
    GPU they go up part by part, while the next part is updated.

    Parameters
    ----------
    params : iterable of torch.Tensor, of pairs of str and torch.Tensor, or of dict
        What is updated, on CPUs and GPUs, in bfloat16, float16, float32 or float64; or groups of it with
        hyperparameters for themselves.
    optimizer : type, default fastopt.AdamW
        A class of fastopt's own or of yours. It is not one of :mod:`fastopt.torch`, of which there are fewer.
    master : {"float32", "split8", "split16"}, optional
        The weights: in float32, or float64 for such parameters, which is the default; or parameters in bfloat16 and the
        bits that they lack, 24 or 32 in all. With None they have the dtype of the parameters, and `rounding`.
    state_dtype, rounding, seed, clip_value, clip_norm, nonfinite, reproducible
        As for :class:`fastopt.Optimizer`. `clip_norm` and `nonfinite` are about all parameters, wherever they are.
    overlap : bool, default True
        Whether gradients go down as soon as backward has made them, by hooks. False where others change them
        afterwards in ways that autograd does not see, as ``DistributedDataParallel`` does.
    bucket_bytes : int, default 2**25
        How many bytes of parameters go up at a time.
    **hyperparameters
        Those of `optimizer`, under its names. `lr` is a number, which schedulers change.

    Attributes
    ----------
    state : dict of torch.Tensor to dict
        Of each parameter that took a step: ``master``, its weight, unless it is that itself; ``step``; the states of
        `optimizer` by its names; ``low`` or ``compensation``, bits beside the weight. All are tensors in the host's
        memory.
    param_groups, defaults
        PyTorch's.
    grad_norm, skipped
        As for :class:`fastopt.Optimizer`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not acceptable.

    Notes
    -----
    A parameter in the host's memory that has the dtype of its weight is that weight: there is no ``master``, and
    nothing is copied. One of another dtype has a weight beside it; its gradient is read, and the parameter written,
    where they are. For AdamW and parameters in bfloat16 that moves 28 bytes an element: 14 are read and 14 written.

    A weight begins as its parameter, at the first step in which that has a gradient. What is written to parameters
    between steps, such as a checkpoint of the model, counts: elements that are no longer what their weights are rounded
    to are the new weights. Of a parameter that is its own weight all bits that are kept beside it become 0. What
    autograd does not see, such as ``p.data.clamp_(...)``, is overwritten by the next step where there is a ``master``.
    A model in the host's memory that is made as wide as its weights, by ``model.float()``, is its own weight from the
    next step on, as it is then: what ``master`` had beyond it is dropped.

    Which gradients are there is seen at the step, as PyTorch's optimizers do: several backwards add up in ``p.grad``,
    in its dtype. A gradient that changed after it went down, by ``clip_grad_norm_`` or a ``GradScaler``, goes down
    again.

    No part of this has been run on a GPU: what is asked of CUDA is in one class, for which the tests have another.

    Examples
    --------
    >>> import torch, fastopt, fastopt.torch
    >>> model = torch.nn.Linear(3, 2, dtype=torch.bfloat16)
    >>> opt = fastopt.torch.Offload(model.parameters(), optimizer=fastopt.AdamW, lr=1e-4)
    >>> model(torch.ones(1, 3, dtype=torch.bfloat16)).sum().backward()
    >>> opt.step()
    >>> opt.state[model.weight]["master"].dtype
    torch.float32
    """

    _formula: Formula  # type: ignore[misc]

    def __init__(
        self,
        params: Any,
        *,
        optimizer: type[Optimizer] = optimizers.AdamW,
        master: Literal["float32"] | formats.Master | None = "float32",
        state_dtype: formats.StateDtypes = None,
        rounding: formats.Rounding = "nearest",
        seed: int = 0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        nonfinite: str = "propagate",
        reproducible: bool | None = None,
        overlap: bool = True,
        bucket_bytes: int = 2**25,
        **hyperparameters: Any,
    ) -> None:
        check_kind(optimizer)
        if master not in (None, "float32", *formats.MASTERS):
            allowed = ", ".join(repr(name) for name in ("float32", *formats.MASTERS))
            raise ValueError(f"master must be {allowed} or None; got {master!r}")
        for name in hyperparameters:
            if name in REFUSED:
                raise TypeError(f"Offload does not take {name!r}: {REFUSED[name]}")
            if name not in optimizer.hyperparameters:
                allowed = ", ".join(own for own in optimizer.hyperparameters if own not in AROUND)
                raise TypeError(f"Offload of {optimizer.__name__} does not take {name!r}; it takes {allowed}")
        self._kind, self._formula = optimizer, formula_of(optimizer)
        kept: formats.Master | None = None if master == "float32" else master
        self._wide, self._overlap = master == "float32", bool(overlap)
        self._bucket = check_integer("bucket_bytes", bucket_bytes, 1)
        self._links = Links(overlap=self._overlap)
        self._of_all_groups = {"clip_value": clip_value, "reproducible": reproducible}
        defaults = {name: optimizer.hyperparameters[name] for name in ("lr", *self._formula.names)} | hyperparameters
        super().__init__(
            params,
            defaults,
            state_dtype=state_dtype,
            rounding=rounding,
            master=kept,
            seed=seed,
            clip_norm=clip_norm,
            nonfinite=nonfinite,
        )
        self._weights = Weights(self.state, self._links)

    def close(self) -> None:
        """Remove the hooks: gradients go down at the step from then on. It is done for an optimizer that is let go."""
        self._links.close()

    def _forget(self) -> None:
        super()._forget()
        self._with_copies: tuple[list[Method], list[Method]] = [], []

    def _format(self, dtype: torch.dtype) -> str:
        return FORMATS.get(self._weight_dtype(dtype), str(dtype))

    def _weight_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Return the dtype of the weights of parameters of a dtype."""
        return torch.float32 if self._wide and dtype.itemsize < 4 else dtype

    def _device_of(self, p: torch.Tensor) -> torch.device | str:
        return "cpu"

    def _updated(self, params: list[torch.Tensor]) -> list[torch.Tensor]:
        return self._weights.of(params)

    def _read(self, params: list[torch.Tensor], grads: list[torch.Tensor]) -> list[torch.Tensor]:
        return self._links.gradients(params, grads, lambda p: self._name_of("grads", p))

    def _name_of(self, name: str, p: torch.Tensor) -> str:
        """Return what an error calls a parameter, or its gradient."""
        g, k = next((g, k) for g, k, other in self._places() if other is p)
        return _named(name, g, k)

    def _methods_now(self) -> list[Method]:
        """Return the formulas of all groups, and then those of the same with copies."""
        plain, (before, copied) = super()._methods_now(), self._with_copies
        if len(plain) != len(before) or not all(map(operator.is_, plain, before)):
            values = [{name: method.__dict__[name] for name in method._fields} for method in plain]
            copied = [self._kind._alone(own, _of_group=True, _copied=True) for own in values]
            self._with_copies = plain, copied
        return [*plain, *copied]

    def _new_session(self, has: bytes, methods: list[Method]) -> Apart:
        assert self._clocks is not None
        places = [(i, *place) for i, place in enumerate(self._places()) if has[i]]
        names = [_named("params", g, k) for _, g, k, _ in places]
        params = [p for *_, p in places]
        for name, p in zip(names, params, strict=True):
            check_whole(name, p)
        weights, made = self._weights.find(names, params, [self._weight_dtype(p.dtype) for p in params])
        members = []
        try:
            for (i, g, k, p), weight in zip(places, weights, strict=True):
                copy = self._links.of(p).copy_for(p, weight)
                method = g if copy is None else g + len(self.param_groups)
                members.append(Member(g, k, i, p, weight, method, copy))
            session = Apart(
                "Offload",
                self._formula,
                self._storage,
                members,
                self.state,
                self._clocks,
                methods,
                weights=self._weights,
                links=self._links,
                bucket_bytes=self._bucket,
            )
        except BaseException:
            for own in made:
                own.pop(MASTER, None)
            raise
        for own in made:
            session.states.made(own, MASTER)
        return session

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
        for name in param_group:
            if name not in self._settings() and name not in LIMITS and (name in OF_ALL_GROUPS or name in REFUSED):
                raise TypeError(f"a group has {name!r}, which is not for a group: {REFUSED.get(name, TO_ALL)}")
        super().add_param_group(param_group)
        new = self.param_groups[-1]["params"]
        try:
            for p in new:
                check_whole(self._name_of("params", p), p)
            self._links.reach(new)
        except BaseException:
            self.param_groups.pop()
            raise

    def _settings(self) -> dict[str, Any]:
        own = {"optimizer": self._kind, "overlap": self._overlap, "bucket_bytes": self._bucket}
        master = "float32" if self._wide else self._storage.master
        return {**super()._settings(), "master": master, **own, **self._of_all_groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint of this class, with the same `optimizer`.

        Parameters
        ----------
        state_dict : dict
            What `state_dict` returned. Its tensors are copied.

        Raises
        ------
        ValueError
            If it is of another optimizer, or does not fit the param groups.
        """
        check_checkpoint(self._kind, self._formula, state_dict)
        super().load_state_dict(state_dict)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle needs."""
        own = {name: self.__dict__[name] for name in ("_kind", "_wide", "_overlap", "_bucket")}
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what :meth:`__getstate__` returned, or the state and the groups of a checkpoint."""
        super().__setstate__(state)
        if "_kind" in state:  # a copy
            self._formula, self._links = formula_of(self._kind), Links(overlap=self._overlap)
            self._links.reach([p for group in self.param_groups for p in group["params"]])
        self._weights = Weights(self.state, self._links)


def _named(name: str, g: int, k: int) -> str:
    """Return what an error calls parameter number `k` of group `g`, or its gradient."""
    return f"params[{g}]['params'][{k}]" if name == "params" else f"{name}[{g}][{k}]"
