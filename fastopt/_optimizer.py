"""The base class of all optimizers: params, state, step, checkpoints."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from . import _checkpoint, _formats
from ._arrange import codecs_of, make_groups, make_states
from ._arrays import Array, Structure, check_array, check_disjoint, check_integer, flatten, format_of
from ._cuda import arrays as gpu
from ._cuda.plan import DeviceGroup
from ._method import Method
from ._plan import Group

#: Every optimizer by its class name, for those who wish to go through all of them.
registry: dict[str, type[Optimizer]] = {}


class Optimizer(Method):
    """What every optimizer has; make one of its subclasses, such as :class:`fastopt.Adam`.

    Parameters
    ----------
    params : ndarray or array on a GPU, sequence of them, or mapping of str to them
        What is updated in place: float64, float32, float16 or bfloat16 (or its bits as uint16) in native byte order, of
        any shape, contiguous in C or Fortran order, writable, no two sharing memory. Arithmetic is in float64 for
        float64, in float32 for all others.
    state_dtype : str, dtype, or mapping of state to them, optional
        How states are stored: as float32 (the default), bfloat16, float16 or int8 where arithmetic is in float32; as
        float64 (the default) or float32 where it is in float64. "int8" is 8 bits and a scale for each block of 1024.
    rounding : {"nearest", "stochastic", "kahan"}, default "nearest"
        How parameters of 16 bits are rounded: to the nearest; up as often as they are near to the number above; or to
        the nearest, with what was lost kept beside in 16 more bits and added before the next update.
    master : {"split8", "split16"}, optional
        Parameters in bfloat16 are the upper part of a weight of 24 or 32 bits, whose other bits are kept beside. With
        "split16" that is exactly training with weights in float32.
    seed : int, default 0
        Chooses, with the number of the step and the place of an element, how numbers are rounded at random.
    capturable : bool, default False
        For GPUs: keep the step number and `lr` there, so that a CUDA graph can hold steps.
    **hyperparameters
        As the subclass has them; see its docstring.

    Attributes
    ----------
    params : as given
    state : dict of str to (arrays arranged as `params`)
        Live: these are the arrays that steps update. bfloat16 is ml_dtypes' if that is installed, and uint16 (the upper
        half of a float32) if not. Of "int8" these are the codes, with the scales as ``m_scale``: see :meth:`decoded`.
        "low" is what `master` hides, "compensation" what Kahan's rounding keeps; None for other parameters.
    step_count : int
        The number of steps taken.

    Raises
    ------
    TypeError
        If an array is of another kind or dtype, or a hyperparameter unknown or of another type.
    ValueError
        If arrays are read-only, not contiguous or share memory, or a hyperparameter is out of range.
    """

    __signature__: ClassVar[inspect.Signature]
    _groups: Sequence[Group] = ()
    _capturable = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        registry[cls.__name__] = cls
        params = inspect.Parameter("params", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        own = {"state_dtype": None, "rounding": "nearest", "master": None, "seed": 0, "capturable": False}
        others = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=d) for n, d in own.items()]
        cls.__signature__ = inspect.Signature([params, *cls.parameters(), *others])

    def __init__(
        self,
        params: Any,
        *,
        state_dtype: Any = None,
        rounding: str = "nearest",
        master: str | None = None,
        seed: int = 0,
        capturable: bool = False,
        **hyperparameters: Any,
    ) -> None:
        if not hasattr(type(self), "make"):
            raise TypeError(f"{type(self).__name__} has no rule: make one of its subclasses, such as fastopt.Adam")
        structure, given = flatten("params", params)
        arrays = [gpu.as_header(structure.label("params", t), a) for t, a in enumerate(given)]
        for t, array in enumerate(arrays):
            check_array(structure.label("params", t), array, written=True)
            if capturable and gpu.device_of(array) is None:
                where = structure.label("params", t)
                raise TypeError(f"capturable=True needs all arrays on GPUs; {where} is on the CPU")
        check_disjoint((structure.label("params", t), a) for t, a in enumerate(arrays))
        self._capturable, self._steps = bool(capturable), 0
        self._set_hyperparameters(dict(self.hyperparameters) | hyperparameters)
        kept = structure.kind == "array" or isinstance(params, (Mapping, Sequence))
        self.params: Any = params if kept else given
        self._structure: Structure = structure
        self._arrays: list[Array] = arrays
        names = self._state_names = self.active_states()
        self._seed = check_integer("seed", seed, 0)
        formats = [str(format_of(a.dtype)) for a in arrays]
        _formats.check_rounding(rounding, master, formats)
        by_state = _formats.by_state(state_dtype, names, type(self).__name__)
        self._codecs = [codecs_of(f, rounding, master, by_state, names, self.squares) for f in formats]
        self._states = make_states(self._arrays, self._codecs, names)
        self._groups = self._make_groups()
        self._set_clocks(0)

    def _make_groups(self) -> list[Group]:
        arrays = (self._structure, self._arrays, self._codecs, self._states)
        return make_groups(*arrays, self._seed, self, capturable=self._capturable)

    @property
    def capturable(self) -> bool:
        """Whether the step number and `lr` are kept on the GPU, so that a CUDA graph can hold steps."""
        return self._capturable

    @property
    def step_count(self) -> int:
        """The number of steps taken; with `capturable`, asked of the GPU, after all that it was asked for."""
        return next((group.read_step() for group in self._clocks()), self._steps)

    @step_count.setter
    def step_count(self, step: int) -> None:
        self._steps = step
        self._set_clocks(step)

    def _set_clocks(self, step: int | None) -> None:
        for group in self._clocks():
            group.write_clock(step, self._learning_rate(1))

    def _clocks(self) -> list[DeviceGroup]:
        """Return the groups that keep the step number and `lr` themselves."""
        return [group for group in self._groups if isinstance(group, DeviceGroup) and group.capturable]

    def _changed(self) -> None:
        super()._changed()
        if self._capturable and callable(self.lr):
            raise TypeError(
                "lr must be a number with capturable=True: a graph calls no Python; set opt.lr between its replays"
            )
        if self._groups and self.active_states() != self._state_names:
            raise ValueError(
                f"{type(self).__name__} has the states {self._state_names}; this change would make them "
                f"{self.active_states()}: make a new optimizer instead"
            )
        self._set_clocks(None)

    @property
    def state(self) -> dict[str, Any]:
        """The states by name, each arranged as `params`; the arrays that steps update, not copies."""
        return {
            name: self._structure.pack(None if a is None else _formats.shown(gpu.owner(a)) for a in row)
            for name, row in self._states.items()
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
        return self._structure.pack(_checkpoint.decode(self, name))

    def step(self, grads: Any = None, *, stream: Any = None) -> None:
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
            If a gradient is not acceptable, or there is none; nothing has been written then.
        RuntimeError
            If the stream is being captured into a graph and the step cannot be.
        """
        step = self._steps + 1
        if grads is None:
            self._recall()
        else:
            self._read(grads)
        values = self.values(step)
        for group in self._groups:
            group.aim(stream)
            group.prepare(self.spec(group.codecs), values)
        for group in self._groups:
            group.launch(step)
        self._steps = step

    def _read(self, grads: Any) -> None:
        arrays = self._structure.unpack("grads", grads)
        for group in self._groups:
            group.read([arrays[t] for t in group.indices])

    def _recall(self) -> None:
        for group in self._groups:
            group.recall()

    def bind(self, grads: Any) -> None:
        """Check `grads` once and use these very arrays in every later ``step()`` without an argument.

        For loops that write each gradient into the same memory. Such a step pays nothing per tensor.

        Parameters
        ----------
        grads : ndarray, sequence or mapping
            As for :meth:`step`. They are kept alive. Neither they nor `params` are looked at again: do not resize them
            in place, and make no parameter read-only.

        Raises
        ------
        TypeError, ValueError
            As for :meth:`step`.
        """
        self._read(grads)
        for group in self._groups:
            group.bind()

    def state_dict(self) -> dict[str, Any]:
        """Return a checkpoint: one flat dict of numbers and of copies of the state arrays.

        ``numpy.savez(file, **opt.state_dict())`` writes it, ``opt.load_state_dict(numpy.load(file))`` reads
        it; no pickle is involved. The parameters are not part of it, nor is an `lr` that is a function.

        Returns
        -------
        dict
            ``optimizer``, ``step``, ``seed``, every hyperparameter by name, and all arrays of :attr:`state`: ``m``
            for a single array, ``m/0`` or ``m/name`` for a sequence or a mapping.
        """
        return _checkpoint.save(self)

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from a checkpoint: states, step number and hyperparameters.

        A run that is continued so gives the same bits as one that was never interrupted. An `lr` that is a
        function stays.

        Parameters
        ----------
        saved : mapping
            What :meth:`state_dict` returned, or the opened file that ``numpy.savez`` made of it.

        Raises
        ------
        TypeError, ValueError
            If it is of another optimizer, or an entry is missing, unexpected or unacceptable; nothing has
            been changed then.
        """
        _checkpoint.load(self, saved)

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name.startswith("_") or name in ("params", "step_count") or hasattr(type(self), name)):
            allowed = ", ".join(self._fields)
            raise AttributeError(f"{type(self).__name__} has no {name!r} to set; it has {allowed}")
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle needs; addresses and compiled rules are made anew from it."""
        if any(gpu.device_of(a) is not None for a in self._arrays):
            raise TypeError(f"{type(self).__name__} of arrays on a GPU cannot be copied or pickled: use state_dict()")
        return {name: value for name, value in self.__dict__.items() if name not in ("_groups", "_rule", "_specs")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._changed()
        self._groups = self._make_groups()

    def __repr__(self) -> str:
        elements = sum(a.size for a in self._arrays)
        dtypes = " and ".join(group.own[0] for group in self._groups)
        count = len(self._arrays)
        arrays = f"{count} array{'s' if count != 1 else ''}, {elements:_} elements"
        taken = f"step_count={self.step_count}"
        hyper = (f"{name}={value!r}" for name, value in self.describe())
        return f"{type(self).__name__}({', '.join([arrays, dtypes, taken, *hyper])})"
