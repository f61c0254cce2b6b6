"""The base class of all optimizers: params, state, step, checkpoints."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from ._arrays import Array, Structure, check_array, check_disjoint, check_like, flatten
from ._method import Method
from ._plan import Group, allocate

#: Every optimizer by its class name, for those who wish to go through all of them.
registry: dict[str, type[Optimizer]] = {}


class Optimizer(Method):
    """What every optimizer has; make one of its subclasses, such as :class:`fastopt.Adam`.

    Parameters
    ----------
    params : ndarray, sequence of ndarray, or mapping of str to ndarray
        What is updated in place: float32 or float64 in native byte order, of any shape, contiguous in C or
        Fortran order, writable, no two sharing memory.
    **hyperparameters
        As the subclass has them; see its docstring.

    Attributes
    ----------
    params : as given
    state : dict of str to (arrays arranged as `params`)
        Live: these are the arrays that steps update.
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

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        registry[cls.__name__] = cls
        params = inspect.Parameter("params", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        cls.__signature__ = inspect.Signature([params, *cls.parameters()])

    def __init__(self, params: Any, **hyperparameters: Any) -> None:
        if not hasattr(type(self), "make"):
            raise TypeError(f"{type(self).__name__} has no rule: make one of its subclasses, such as fastopt.Adam")
        structure, arrays = flatten("params", params)
        if not arrays:
            raise ValueError("params must hold at least one array, got none")
        for t, array in enumerate(arrays):
            check_array(structure.label("params", t), array, written=True)
        check_disjoint((structure.label("params", t), a) for t, a in enumerate(arrays))
        self._set_hyperparameters(dict(self.hyperparameters) | hyperparameters)
        self.params: Any = params if isinstance(params, (np.ndarray, Mapping, Sequence)) else arrays
        self.step_count = 0
        self._structure: Structure = structure
        self._arrays: list[Array] = arrays
        names = self._state_names = self.active_states()
        self._states: dict[str, list[Array]] = {
            name: [allocate(a, k, len(names)) for a in arrays] for k, name in enumerate(names)
        }
        self._groups = self._make_groups()

    def _make_groups(self) -> list[Group]:
        groups = []
        for dtype in dict.fromkeys(a.dtype for a in self._arrays):
            indices = [t for t, a in enumerate(self._arrays) if a.dtype == dtype]
            states = [[row[t] for t in indices] for row in self._states.values()]
            groups.append(Group(self._structure, indices, [self._arrays[t] for t in indices], states))
        return groups

    def _changed(self) -> None:
        super()._changed()
        if self._groups and self.active_states() != self._state_names:
            raise ValueError(
                f"{type(self).__name__} has the states {self._state_names}; this change would make them "
                f"{self.active_states()}: make a new optimizer instead"
            )

    @property
    def state(self) -> dict[str, Any]:
        """The states by name, each arranged as `params`; the arrays that steps update, not copies."""
        return {name: self._structure.pack(row) for name, row in self._states.items()}

    def step(self, grads: Any = None) -> None:
        """Update the parameters and the states in place, in one pass over memory.

        Parameters
        ----------
        grads : ndarray, sequence or mapping, optional
            The gradients, arranged as `params`; each of the shape, dtype and memory order of its
            parameter, none sharing memory with any other array of the step. Without it, the gradients that
            :meth:`bind` was given.

        Raises
        ------
        TypeError, ValueError
            If a gradient is not acceptable, or there is none; nothing has been written then.
        """
        step = self.step_count + 1
        if grads is None:
            self._recall()
        else:
            self._read(grads)
        values = self.values(step)
        for group in self._groups:
            group.prepare(self.spec(group.dtype), values)
        for group in self._groups:
            group.launch()
        self.step_count = step

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
        saved: dict[str, Any] = {"optimizer": type(self).__name__, "step": self.step_count}
        plain = (item for item in self.describe() if item[1] is not None and not callable(item[1]))
        saved.update(plain)
        saved.update({key: a.copy(order="K") for key, a in self._state_items()})
        return saved

    def _state_items(self) -> list[tuple[str, Array]]:
        single = self._structure.kind == "array"
        return [
            (name if single else f"{name}/{self._structure.keys[t]}", a)
            for name, row in self._states.items()
            for t, a in enumerate(row)
        ]

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
        own = type(self).__name__
        if not isinstance(saved, Mapping):
            raise TypeError(f"the checkpoint must be a mapping, got {type(saved).__name__}")
        of = str(saved.get("optimizer"))
        if of != own:
            raise ValueError(f"the checkpoint must be of {own}, got one of {of}")
        states = dict(self._state_items())
        hyper = {n: np.asarray(saved[n]).tolist() for n in self._fields if n in saved}
        optional = {name for name, value in self.hyperparameters.items() if value is None} | {"lr"}
        required = ({"step", *states, *self._fields} - optional) | {"optimizer"}
        missing = sorted(required - set(saved))
        extra = sorted(set(saved) - required - optional)
        if missing or extra:
            raise ValueError(f"the checkpoint lacks the entries {missing} and has the extra ones {extra}")
        step = np.asarray(saved["step"]).tolist()
        if not isinstance(step, int) or isinstance(step, bool) or step < 0:
            raise ValueError(f"step must be an integer >= 0, got {step!r}")
        loaded = {key: np.asarray(saved[key]) for key in states}
        for key, array in loaded.items():
            check_array(key, array, written=False)
            if array.dtype != states[key].dtype or array.shape != states[key].shape:
                check_like(key, array, "the state", states[key])
        if callable(self.lr):
            hyper.pop("lr", None)
        self._set_hyperparameters(dict.fromkeys(optional - {"lr"}) | hyper)
        for key, array in loaded.items():
            states[key][...] = array
        self.step_count = step

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name.startswith("_") or name in ("params", "step_count") or hasattr(type(self), name)):
            allowed = ", ".join(self._fields)
            raise AttributeError(f"{type(self).__name__} has no {name!r} to set; it has {allowed}")
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle needs; addresses and compiled rules are made anew from it."""
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
