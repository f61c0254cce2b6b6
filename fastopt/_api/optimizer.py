"""The base class of all optimizers: params, state, step, checkpoints."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from operator import setitem
from typing import Any, ClassVar

from .._arrays import gpu
from .._arrays.checks import MOST_STEPS, check_array, check_disjoint, check_integer
from .._arrays.structure import Grads, Params
from .._arrays.tensors import as_array
from .._engine.extents import COPY
from .._storage import formats
from . import checkpoint
from .adding import Growing
from .arguments import SETTINGS, Selections
from .beside import check_copies
from .files import InFiles
from .hyperparameters import Schedule, Value, check_flag
from .selection import arrange

_DEFAULT: Any = object()


class Optimizer(Growing, InFiles):
    """What every optimizer has; make one of its subclasses, such as :class:`fastopt.Adam`.

    Parameters
    ----------
    params : ndarray, tensor of PyTorch or array on a GPU, sequence of them, or mapping of str to them
        What is updated in place: float64, float32, float16 or bfloat16 (or its bits as uint16) in native byte order, of
        any shape, contiguous in C or Fortran order, writable, no two sharing memory. Arithmetic is in float64 for
        float64, in float32 for all others. Or a sequence of groups, ``{"params": ..., "lr": ...}``, which have
        hyperparameters for themselves; gradients come as a sequence with an entry for each. One alone is the optimizer.
    groups : mapping, optional
        Groups of `params` that are a mapping: by a pattern as of file names (``"*.bias"``), or a tuple of patterns, the
        hyperparameters of all whose names match. The first pattern that matches counts; what none does is a group too.
    state_dtype : str, dtype, or mapping of state to them, optional
        How states are stored: as float32 (the default), bfloat16, float16 or int8 where arithmetic is in float32; as
        float64 (the default) or float32 where it is in float64. "int8" is 8 bits and a scale for each block of 1024.
    rounding : {"nearest", "stochastic", "kahan"}, default "nearest"
        How parameters of 16 bits are rounded: to nearest even; stochastically, so that the mean is exact; or to nearest
        even with Kahan summation, whose residual is kept in 16 more bits and added before the next update.
    master : {"split8", "split16"}, optional
        Parameters in bfloat16 are the upper part of a weight of 24 or 32 bits, whose other bits are kept beside. With
        "split16" and `reproducible` that is training with weights in float32, to the bit.
    seed : int, default 0
        Of stochastic rounding, which depends on it, the step and the index of an element; no effect otherwise.
    grad_scale : float, optional
        What the loss was multiplied by, > 0: gradients are divided by it, in the pass of the step. Set it before each
        step as you like; nothing is compiled anew.
    clip_value : float, optional
        The bound of each element of a gradient, > 0, after `grad_scale` and `clip_norm`.
    clip_norm : float, optional
        The bound of the norm of all gradients together, > 0: where it is larger, all are multiplied by
        ``clip_norm / norm`` in the pass of the step. One pass that reads the gradients comes before, in which squares
        are added in float64; the sum has the same bits for any number of threads.
    ema : float, optional
        The decay factor of an average of the parameters, in [0, 1), which is kept as the state "average" and begins
        with them. In the dtype of the arithmetic unless `state_dtype` names it. Fixed is whether there is one.
    copy_to : as params, optional
        Arrays that each step, and nothing else, writes the new parameters to, rounded to nearest from the dtype of the
        arithmetic: of the shapes, memory orders and places of `params`, in bfloat16, float16 or float32 (float64 or
        float32 of float64). In another collection that was given they may not be replaced unseen.
    zero_grads : bool, default False
        Whether a step leaves 0 in the place of the gradients, which must be writable then; a skipped one does too.
    nonfinite : {"propagate", "skip", "raise"}, default "propagate"
        What becomes of a step where a gradient has a NaN or an infinity: it is taken; or left out, and counted in
        :attr:`skipped`; or it raises FloatingPointError. But for "propagate" nothing is written then, not even
        `step_count`. A norm beyond float64 counts as infinite. It takes the same pass as `clip_norm`.
    capturable : bool, default False
        For GPUs: keep the step number and `lr` there, so that a CUDA graph can hold steps.
    **hyperparameters
        As the subclass has them, `reproducible` among them; see its docstring.

    Attributes
    ----------
    params : as given
        Of groups, the list of what each has.
    groups : tuple of ParamGroup
        The groups of parameters, with their hyperparameters as attributes: ``opt.groups[1].lr = 0.1``. Without groups
        it is one.
    state : dict of str to (arrays arranged as `params`)
        Live: these are the arrays that steps update. bfloat16 is ml_dtypes' if that is installed, and uint16 (the upper
        half of a float32) if not. Of "int8" these are the codes, with the scales as ``m_scale``: see :meth:`decoded`.
        "low": the extra bits of `master`. "compensation": the Kahan residual. None for other parameters.
    step_count : int
        The number of steps taken.
    grad_norm : float or None
        The norm of all gradients of the last step, where `clip_norm` or `nonfinite` asks for it.
    skipped : int
        The number of steps that `nonfinite` left out.
    state_dtype, rounding, master, copy_to, zero_grads, seed, capturable
        As they were given; fixed. `seed` is that of a checkpoint that was loaded.

    Raises
    ------
    TypeError
        If an array is of another kind or dtype, or a hyperparameter unknown or of another type.
    ValueError
        If arrays are read-only, not contiguous or share memory, or a hyperparameter is out of range.
    """

    __signature__: ClassVar[inspect.Signature]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        params, *settings = (declared.parameter() for declared in SETTINGS.values())
        lr, *others = cls.parameters()
        cls.__signature__ = inspect.Signature([params, lr.replace(kind=params.kind), *others, *settings])

    def __init__(
        self,
        params: Params,
        lr: float | Schedule = _DEFAULT,
        *,
        groups: Selections | None = SETTINGS["groups"].default,
        state_dtype: formats.StateDtypes = SETTINGS["state_dtype"].default,
        rounding: formats.Rounding = SETTINGS["rounding"].default,
        master: formats.Master | None = SETTINGS["master"].default,
        copy_to: Params | None = SETTINGS["copy_to"].default,
        zero_grads: bool = SETTINGS["zero_grads"].default,
        seed: int = SETTINGS["seed"].default,
        capturable: bool = SETTINGS["capturable"].default,
        **hyperparameters: Value,
    ) -> None:
        if not hasattr(type(self), "rule"):
            raise TypeError(f"{type(self).__name__} has no rule: make one of its subclasses, such as fastopt.Adam")
        structure, given, self._params, own, group_of, names = arrange(params, groups)
        arrays = [as_array(gpu.as_view(structure.label("params", t), a)) for t, a in enumerate(given)]
        named = [(structure.label("params", t), a) for t, a in enumerate(arrays)]
        for name, array in named:
            check_array(name, array, written=True)
            if capturable and gpu.device_of(array) is None:
                raise TypeError(f"capturable=True needs all arrays on GPUs; {name} is on the CPU")
        check_disjoint(named)
        zeroed, copied = check_flag("zero_grads", zero_grads), copy_to is not None
        self.__dict__.update(_copy_to=copy_to, _copied=copied, _zero_grads=zeroed, _capturable=bool(capturable))
        self.__dict__["_methods"] = ()  # in each step it is found there sooner than in the class
        self._steps, self._structure, self._given, self._arrays = 0, structure, given, arrays
        rate = {} if lr is _DEFAULT else {"lr": lr}
        self._set_hyperparameters({**self.hyperparameters, **hyperparameters, **rate})
        self._set_groups(own, group_of, names)
        self._state_names = self._updates()[0].active_states()
        self._seed = check_integer("seed", seed, 0)
        self._state_dtype, self._rounding, self._master = state_dtype, rounding, master
        self._make_states(check_copies(structure, arrays, copy_to))
        self._make_plan()
        self._plan.set_clocks(0, self._learning_rate)

    @property
    def step_count(self) -> int:
        """The number of steps taken; with `capturable`, read from the GPU, after all work enqueued there."""
        counted = self._plan.read_step()
        return self._steps if counted is None else counted

    @step_count.setter
    def step_count(self, step: int) -> None:
        self._steps = check_integer("step_count", step, 0, MOST_STEPS)
        for group in self._param_groups:
            group.__dict__["_start"] = min(group._start, self._steps)
        self._plan.set_clocks(self._steps, self._learning_rate)

    @property
    def state(self) -> dict[str, Any]:
        """The states by name, each arranged as `params`; the arrays that steps update, not copies."""
        return {
            name: self._structure.pack(None if a is None else formats.shown(gpu.owner(a)) for a in row)
            for name, row in self._states.items()
            if name != COPY
        }

    def decoded(self, name: str) -> Any:
        """Return what a state means, or what the parameters are with all that is kept beside them.

        Parameters
        ----------
        name : str
            A state, or "params".

        Returns
        -------
        ndarray, list or dict
            Copies in the dtype of the arithmetic, arranged as `params`.

        Raises
        ------
        ValueError
            If there is no such state.
        """
        return self._structure.pack(checkpoint.decode(self, name))

    def step(self, grads: Grads | None = None, *, stream: object = None) -> None:
        """Update the parameters and the states in place, in one pass over memory.

        Parameters
        ----------
        grads : ndarray, sequence or mapping, optional
            The gradients, arranged as `params`; each of the shape and memory order of its parameter, in any of the
            dtypes of `params` that is not wider than the arithmetic, those of parameters of one dtype in one. None
            shares memory with any other array of the step. Without it, the gradients that :meth:`bind` was given.
        stream : object, optional
            For arrays on a GPU, which the step does not wait for: a stream of PyTorch, CuPy or Numba, anything with
            ``__cuda_stream__``, or a handle; without it, the one that the library of `params` uses now.

        Raises
        ------
        TypeError, ValueError
            If a gradient is missing or not acceptable, or a parameter or state was changed; nothing has been written.
        FloatingPointError
            If a gradient has a NaN or an infinity and `nonfinite` is "raise"; nothing has been written.
        RuntimeError
            If the stream is being captured into a graph and the step cannot be, or a step is taken within the step.
        """
        # First what runs the caller's code, which may do anything: a mapping of gradients, a schedule.
        plan = self._plan
        given, step = None if grads is None else self._structure.unpack("grads", grads), self._steps + 1
        if self._methods:
            rows, updates = self._rows(step), self._methods
        else:
            rows, updates = (self.values(step),), (self,)
        if self._plan is not plan:
            before, plan = plan, self._plan
            if plan.arrays.structure is not before.arrays.structure:
                raise RuntimeError(f"parameters were added within step {step}, by lr({step}) or what holds the arrays")
        try:
            plan.gather(given)
            if self._steps != step - 1:
                raise RuntimeError(f"step {step} was taken within itself, by lr({step}) or by what holds the arrays")
            plan.prepare(updates, rows, stream)
            counted = (setitem, self.__dict__, "_steps", step)
            if not self._of_all:
                plan.run(step, counted)
            elif plan.alone is not None and plan.alone.limits is not None:
                plan.run(step, counted, (setitem, self.__dict__, "_grad_norm", plan.alone.limit))
            elif (norm := self._limit(rows, stream)) is not None:
                plan.run(step, counted, (setitem, self.__dict__, "_grad_norm", norm))
            elif self._zero_grads:
                plan.zero_grads()
        finally:
            plan.release()

    def bind(self, grads: Grads) -> None:
        """Check `grads` once and use these very arrays in every later ``step()`` without an argument.

        For loops that write each gradient into the same memory. Such a step pays nothing per tensor.

        Parameters
        ----------
        grads : ndarray, sequence or mapping
            As for :meth:`step`. They are kept alive; a copy of the optimizer has none. Neither they nor `params` are
            looked at again: do not resize or replace them, and make no parameter read-only.

        Raises
        ------
        TypeError, ValueError
            As for :meth:`step`.
        """
        self._plan.arrays.bind(grads)

    def state_dict(self) -> dict[str, Any]:
        """Return a checkpoint: one flat dict of numbers and of copies of the state arrays.

        ``numpy.savez(file, **opt.state_dict())`` writes it, ``opt.load_state_dict(numpy.load(file))`` reads it, without
        pickle; see also :meth:`save`. The parameters are not part of it, nor is an `lr` that is a function.

        Returns
        -------
        dict
            ``optimizer``, ``step``, ``seed``, ``rounding``, ``master`` if there is one, every hyperparameter by name,
            those of groups as ``group/0/lr``, and all arrays of :attr:`state`: ``m``, or ``m/0``, ``m/name``.
        """
        return checkpoint.save(self)

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from a checkpoint: states, step number and hyperparameters, those about gradients among them.

        A run continued so gives the bits of one that was never interrupted. An `lr` that is a function stays.

        Parameters
        ----------
        saved : mapping
            What :meth:`state_dict` returned, or the opened file that ``numpy.savez`` made of it.

        Raises
        ------
        TypeError, ValueError
            If it is of another optimizer, or an entry is missing or not acceptable; nothing has been changed then.
        """
        checkpoint.restore(self, saved)

    def __repr__(self) -> str:
        dtypes, count = " and ".join(dict.fromkeys(group.own[0] for group in self._groups)), len(self._arrays)
        arrays = f"{count} array{'s' if count != 1 else ''}, {sum(a.size for a in self._arrays):_} elements"
        hyper = [f"{name}={value!r}" for name, value in self.describe()]
        if len(self._param_groups) > 1:
            hyper.append(f"groups={self._param_groups!r}")
        return f"{type(self).__name__}({', '.join([arrays, dtypes, f'step_count={self.step_count}', *hyper])})"
