"""The loop around an optimizer: initialise, gradient, update, stop when the minimum is reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ._api.hyperparameters import in_range
from ._api.optimizer import Optimizer
from ._arrays.checks import Array, check_integer, check_unmasked
from .optimizers.adam import Adam


@dataclass
class MinimizeResult:
    """What :func:`minimize` found; the fields are named as in SciPy's ``OptimizeResult``.

    Attributes
    ----------
    x : ndarray
        The last point at which the loss and the gradient were finite, of the shape of `x0`.
    fun : float
        The loss there.
    jac : ndarray
        The gradient there.
    nit : int
        The number of updates that led there.
    nfev, njev : int
        How often the loss and the gradient were evaluated.
    success : bool
        Whether a tolerance was reached.
    status : int
        0: the gradient is within `tol`. 1: the step is within `step_tol`. 2: `max_iter` updates were made.
        3: the loss or the gradient was not finite. 4: the callback asked to stop.
    message : str
        The same in words, with the numbers.
    history : dict of str to ndarray
        ``fun`` and ``grad_norm`` (largest absolute component) at every point, `x0` first.

    Examples
    --------
    >>> import numpy as np, fastopt
    >>> fastopt.minimize(lambda x: np.sum(x**2), [1.0], grad=lambda x: 2 * x, max_iter=3).status
    2
    """

    x: Array
    fun: float
    jac: Array
    nit: int
    nfev: int
    njev: int
    success: bool
    status: int
    message: str
    history: dict[str, Array] = field(repr=False)


Callback = Callable[[MinimizeResult], bool | None]
Progress = Callable[[int, float, float], None]


def minimize(
    fun: Callable[[Array], Any],
    x0: npt.ArrayLike,
    *,
    grad: Callable[[Array], npt.ArrayLike] | bool,
    optimizer: Callable[[Array], Optimizer] = Adam,
    tol: float = 1e-6,
    step_tol: float = 0.0,
    max_iter: int = 10_000,
    callback: Callback | None = None,
    progress: bool = False,
) -> MinimizeResult:
    """Minimize a function with an optimizer of this package.

    Parameters
    ----------
    fun : callable
        ``fun(x)`` returns the loss, a number; with ``grad=True`` the pair of loss and gradient. `x` is
        read-only and updated in place between calls: copy it to keep it.
    x0 : array_like
        Where to start; not changed. float32 stays float32, any other real dtype becomes float64.
    grad : callable or True
        ``grad(x)`` returns the gradient, of the shape of `x`.
    optimizer : callable, default Adam
        ``optimizer(x)`` returns the optimizer of that very array: a class, or for its hyperparameters
        ``functools.partial(fastopt.Adam, lr=0.1)``.
    tol : float, default 1e-6
        Stop when no component of the gradient is larger than this, in absolute value; >= 0.
    step_tol : float, default 0.0
        Stop when no component of `x` changed by more than this, if it is above 0.
    max_iter : int, default 10_000
        The most updates to make, >= 0.
    callback : callable, optional
        Called with a :class:`MinimizeResult` after every update that did not end the loop; `x` and `jac` in
        it are live, `history` is empty. True as an answer, or raising StopIteration, stops the loop.
    progress : bool, default False
        Show a progress bar; needs tqdm (the extra ``progress``).

    Returns
    -------
    MinimizeResult
        The point, why the loop stopped, and the history.

    Raises
    ------
    TypeError, ValueError
        If an argument or a gradient is not acceptable, such as complex numbers or a masked array.
    ImportError
        If `progress` is asked for and tqdm is missing.

    Notes
    -----
    A loss or a gradient that is not finite stops the loop: ``success`` is False, ``message`` says which and
    when, and ``x`` is the last point at which both were finite.

    Examples
    --------
    >>> import functools, fastopt
    >>> result = fastopt.minimize(
    ...     lambda x: (x - 3) ** 2, 0.0, grad=lambda x: 2 * (x - 3),
    ...     optimizer=functools.partial(fastopt.GD, lr=0.1),
    ... )
    >>> print(result.message)
    the gradient is within tol: 9.87e-07 <= 1e-06 after 70 updates
    >>> result.x
    array(2.99999951)
    """
    tol = in_range("tol", tol, 0, np.inf, high_in=False)
    step_tol = in_range("step_tol", step_tol, 0, np.inf, high_in=False)
    max_iter = check_integer("max_iter", max_iter, 0)
    for name, given in (("fun", fun), ("optimizer", optimizer), ("callback", callback)):
        if not callable(given) and not (given is None and name == "callback"):
            raise TypeError(f"{name} must be callable, got {type(given).__name__} {given!r}")
    evaluate = _evaluator(fun, grad)
    start = _real("x0", x0)
    x = np.array(start, dtype=start.dtype if start.dtype in (np.float32, np.float64) else np.float64, order="C")
    g = np.empty_like(x)
    opt = optimizer(x)
    if not isinstance(opt, Optimizer):
        raise TypeError(f"optimizer must return a fastopt optimizer, got {type(opt).__name__} {opt!r}")
    if opt.params is not x:
        raise ValueError(
            f"optimizer must return an optimizer of the array that it is called with, got one of others: {opt!r}"
        )
    opt.bind(g)
    seen = x.view()
    seen.flags.writeable = False

    best = MinimizeResult(x.copy(), np.nan, np.full_like(x, np.nan), 0, 0, 0, False, 2, "", {})
    losses: list[float] = []
    norms: list[float] = []
    moved = np.inf
    with _bar(progress, max_iter) as show:
        for nit in range(max_iter + 1):
            loss = evaluate(seen, g)
            norm = float(np.max(np.abs(g), initial=0.0))
            losses.append(loss)
            norms.append(norm)
            show(nit, loss, norm)
            if not (np.isfinite(loss) and np.isfinite(norm)):
                what = "loss" if not np.isfinite(loss) else "gradient"
                _stop(best, 3, f"the {what} is not finite after {nit} updates; x is from {best.nit} updates")
                break
            best.fun, best.nit, best.nfev, best.njev = loss, nit, nit + 1, nit + 1
            best.x[...], best.jac[...] = x, g
            if norm <= tol:
                _stop(best, 0, f"the gradient is within tol: {norm:.3g} <= {tol:g} after {nit} updates")
                break
            if moved <= step_tol and step_tol > 0:
                _stop(best, 1, f"the step is within step_tol: {moved:.3g} <= {step_tol:g} after {nit} updates")
                break
            if nit == max_iter:
                _stop(best, 2, f"{max_iter} updates were made; the gradient is {norm:.3g} > {tol:g}")
                break
            if callback is not None and nit and _asks_to_stop(callback, best):
                _stop(best, 4, f"the callback asked to stop after {nit} updates")
                break
            opt.step()
            if step_tol > 0:
                moved = float(np.max(np.abs(x - best.x), initial=0.0))
                if moved == 0 and (callable(opt.lr) or opt.skipped):
                    moved = np.inf  # a learning rate of 0, as a warm-up begins with, or a step that was skipped
    best.nfev = best.njev = len(losses)  # one more than for the point, where the last was not finite
    best.history = {"fun": np.array(losses), "grad_norm": np.array(norms)}
    return best


def _real(name: str, given: Any) -> Array:
    """Return what is given as an array, if it holds real numbers and nothing else that would be lost.

    Raises
    ------
    TypeError
        If it is masked, complex, or of something else.
    """
    check_unmasked(name, given)
    if hasattr(given, "detach"):  # a tensor of PyTorch's, which shows no number of what it differentiates
        given = given.detach()
    array = np.asarray(given)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be real numbers, got {array.dtype} {given!r}")
    return array


def _stop(result: MinimizeResult, status: int, message: str) -> None:
    result.status, result.success, result.message = status, status in (0, 1), message


def _asks_to_stop(callback: Callback, result: MinimizeResult) -> bool:
    try:
        return bool(callback(result))
    except StopIteration:
        return True


def _evaluator(fun: Callable[[Array], Any], grad: Any) -> Callable[[Array, Array], float]:
    """Return what evaluates the loss at `x` and writes the gradient to `g`."""
    if grad is not True and not callable(grad):
        raise TypeError(f"grad must be a callable, or True if fun returns (loss, gradient); got {grad!r}")

    def evaluate(x: Array, g: Array) -> float:
        loss, gradient = fun(x) if grad is True else (fun(x), grad(x))
        gradient, loss = _real("the gradient", gradient), _real("the loss", loss)
        if gradient.shape != g.shape:
            raise ValueError(f"the gradient must have the shape of x, {g.shape}; got {gradient.shape}")
        if loss.size != 1:
            raise ValueError(f"fun must return one number, got an array of shape {loss.shape}")
        g[...] = gradient
        return float(loss.reshape(()))

    return evaluate


@contextmanager
def _bar(wanted: bool, total: int) -> Iterator[Progress]:
    if not wanted:
        yield lambda nit, loss, norm: None
        return
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install 'fastopt[progress]'") from error
    with tqdm(total=total, unit="step") as bar:

        def show(nit: int, loss: float, norm: float) -> None:
            bar.update(nit - bar.n)
            bar.set_postfix(fun=f"{loss:.3g}", grad=f"{norm:.3g}", refresh=False)

        yield show
