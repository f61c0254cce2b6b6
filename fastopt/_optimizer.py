"""The base class of all optimizers: params, state, step, checkpoints."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from . import _checkpoint, _formats
from ._arrays import Array, Structure, check_array, check_disjoint, flatten
from ._cuda import arrays as gpu
from ._cuda.plan import DeviceGroup
from ._method import Method
from ._plan import Group, allocate

#: Every optimizer by its class name, for those who wish to go through all of them.
registry: dict[str, type[Optimizer]] = {}


class Optimizer(Method):
    """What every optimizer has; make one of its subclasses, such as :class:`fastopt.Adam`.

    Parameters
    ----------
    params : ndarray or array on a GPU, sequence of them, or mapping of str to them
        What is updated in place: float32 or float64 in native byte order, of any shape, contiguous in C or
        Fortran order, writable, no two sharing memory.
    state_dtype : str, dtype, or mapping of state to them, optional
        How states are stored: "bfloat16" or "float16" beside float32 parameters, "float32" beside float64; by
        default as the parameters are. Arithmetic is in the dtype of the parameters.
    capturable : bool, default False
        For GPUs: keep the step number and `lr` there, so that a CUDA graph can hold steps.
    **hyperparameters
        As the subclass has them; see its docstring.

    Attributes
    ----------
    params : as given
    state : dict of str to (arrays arranged as `params`)
        Live: these are the arrays that steps update. bfloat16 is ml_dtypes' if that is installed, and uint16 (the upper
        half of a float32) if not.
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
    _formats: Mapping[str, str] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        registry[cls.__name__] = cls
        params = inspect.Parameter("params", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        own = {"state_dtype": None, "capturable": False}
        others = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=d) for n, d in own.items()]
        cls.__signature__ = inspect.Signature([params, *cls.parameters(), *others])

    def __init__(
        self, params: Any, *, state_dtype: Any = None, capturable: bool = False, **hyperparameters: Any
    ) -> None:
        if not hasattr(type(self), "make"):
            raise TypeError(f"{type(self).__name__} has no rule: make one of its subclasses, such as fastopt.Adam")
        structure, given = flatten("params", params)
        if not given:
            raise ValueError("params must hold at least one array, got none")
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
        self._formats = _formats.by_state(state_dtype, names, type(self).__name__)
        self._states = self._make_states()
        self._groups = self._make_groups()
        self._set_clocks(0)

    def _make_states(self) -> dict[str, list[Array]]:
        states: dict[str, list[Array]] = {name: [] for name in self._state_names}
        for k, name in enumerate(states):
            for t, array in enumerate(self._arrays):
                dtype = _formats.stored(self._formats.get(name), array.dtype)
                if gpu.device_of(array) is None:
                    states[name].append(allocate(array, k, len(states), dtype))
                elif dtype == array.dtype:
                    states[name].append(gpu.zeros_like(array))
                else:
                    where = self._structure.label("params", t)
                    raise TypeError(f"state_dtype is for the CPU so far, and {where} is on a GPU")
        return states

    def _stored(self, dtype: np.dtype[Any]) -> tuple[np.dtype[Any], ...]:
        dtypes = tuple(_formats.stored(self._formats.get(name), dtype) for name in self.active_states())
        return dtypes if set(dtypes) - {dtype} else ()

    def _make_groups(self) -> list[Group]:
        groups: list[Group] = []
        kinds = [(gpu.device_of(a), a.dtype) for a in self._arrays]
        for kind in dict.fromkeys(kinds):
            indices = [t for t, other in enumerate(kinds) if other == kind]
            params = [self._arrays[t] for t in indices]
            states = [[row[t] for t in indices] for row in self._states.values()]
            if kind[0] is None:
                groups.append(Group(self._structure, indices, params, states))
            else:
                groups.append(DeviceGroup(self._structure, indices, params, states, self, self._capturable))
        return groups

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
            name: self._structure.pack(_formats.shown(gpu.owner(a)) for a in row) for name, row in self._states.items()
        }

    def step(self, grads: Any = None, *, stream: Any = None) -> None:
        """Update the parameters and the states in place, in one pass over memory.

        Parameters
        ----------
        grads : ndarray, sequence or mapping, optional
            The gradients, arranged as `params`; each of the shape, dtype and memory order of its
            parameter, none sharing memory with any other array of the step. Without it, the gradients that
            :meth:`bind` was given.
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
            group.prepare(self.spec(group.dtype), values)
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
            ``optimizer``, ``step``, every hyperparameter by name, and the states: ``m`` for a single array,
            ``m/0`` or ``m/name`` for a sequence or a mapping.
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
        dtypes = " and ".join(group.dtype.name for group in self._groups)
        count = len(self._arrays)
        arrays = f"{count} array{'s' if count != 1 else ''}, {elements:_} elements"
        taken = f"step_count={self.step_count}"
        hyper = (f"{name}={value!r}" for name, value in self.describe())
        return f"{type(self).__name__}({', '.join([arrays, dtypes, taken, *hyper])})"
