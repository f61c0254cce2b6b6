"""Going on from a checkpoint: states that lie as a step wants them, in the place of those that PyTorch would make."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch

from .._engine.allocation import Place
from .formulas import check_flags
from .memory import copies
from .shards import is_distributed, local_of


def load(opt: Any, load_state_dict: Callable[[dict[str, Any]], None], state_dict: dict[str, Any]) -> None:
    """Have an optimizer take copies of what a checkpoint has, by PyTorch's own function for that."""
    given: list[dict[str, Any]] = []

    def take(_: Any, saved: dict[str, Any]) -> dict[str, Any]:
        for group in saved["param_groups"]:
            check_flags(group)
        given.append(saved)
        # PyTorch would bring states to the dtype and the device of their parameters: they may have more digits
        # here, and there may be no room for them there. It sees the clocks alone, which it may look at.
        places = {index for group in saved["param_groups"] for index in group["params"]}
        clocks = {
            key: {name: own[name] for name in own if name in opt._formula.clock} if key in places else own
            for key, own in saved["state"].items()
        }
        return {**saved, "state": clocks}

    def give(_: Any) -> None:
        saved = given[-1]
        places = [index for group in saved["param_groups"] for index in group["params"]]
        owned = [
            (p, opt._device_of(p), saved["state"].get(index, {}))
            for index, (*_, p) in zip(places, opt._places(), strict=True)
        ]
        for (p, *_), new in zip(owned, _copied(owned, opt._formula.clock), strict=True):
            if new:  # looking makes an entry
                opt.state[p].update(new)

    before = opt.register_load_state_dict_pre_hook(take)
    after = opt.register_load_state_dict_post_hook(give, prepend=True)
    try:
        load_state_dict(state_dict)
    finally:
        before.remove()
        after.remove()


def _copied(
    owned: Sequence[tuple[torch.Tensor, torch.device | str, Mapping[str, Any]]], clock: Collection[str]
) -> list[dict[str, Any]]:
    """Return copies of the states that parameters have in a checkpoint, on given devices, but for those of a clock."""
    found: list[dict[str, Any]] = []
    pooled: list[tuple[dict[str, Any], str, torch.Tensor, Place]] = []
    for p, device, states in owned:
        found.append({})
        in_host = torch.device(device).type == "cpu"
        for k, (key, value) in enumerate(states.items()):
            if not isinstance(value, torch.Tensor):
                found[-1][key] = copy.deepcopy(value)
            elif key in clock:
                found[-1][key] = value.detach().to("cpu", copy=True)
            elif in_host and _is_plain(value):
                found[-1][key] = None  # so that they stay in order
                beside = Place.beside(local_of(p).data_ptr(), p.nbytes, k, len(states))
                pooled.append((found[-1], key, value, beside))
            else:
                found[-1][key] = value.detach().to(device, copy=True)
    made = copies([value for *_, value, _ in pooled], [beside for *_, beside in pooled])
    for (own, key, *_), new in zip(pooled, made, strict=True):
        own[key] = new
    return found


def _is_plain(value: torch.Tensor) -> bool:
    """Say whether a tensor is nothing but elements at strides."""
    special = value.is_quantized or value.is_nested or is_distributed(value)
    return value.layout is torch.strided and not special
