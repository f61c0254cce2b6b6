"""Parameters that are sharded among processes: the shard of each that is here, and the norm of all together.

A ``DTensor`` consists of a plain tensor in each process, which is what a step updates. Nothing here imports
``torch.distributed.tensor``, which takes half a second: who has such a tensor has imported it.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from .._api.limits import LEAST_MAX
from .._arrays.checks import Array
from .._arrays.structure import Structure
from .._engine.reduce import Reduced, Reduction


def is_distributed(tensor: Any) -> bool:
    """Say whether something is a DTensor, of which each process has a shard or a replica."""
    kind = getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", None)
    return kind is not None and isinstance(tensor, kind)


def local_of(tensor: Any) -> Any:
    """Return what is in this process of a DTensor; anything else as it is."""
    # to_local() makes another object of a parameter at each call.
    return tensor._local_tensor if is_distributed(tensor) else tensor


def is_whole(p: Any) -> bool:
    """Say whether this process has all elements of a parameter."""
    return not is_distributed(p) or all(placement.is_replicate() for placement in p.placements)


def check_placements(name: str, p: Any) -> None:
    """Raise TypeError if a parameter is a sum that is still to be taken."""
    if is_distributed(p) and any(placement.is_partial() for placement in p.placements):
        raise TypeError(
            f"{name} has the placements {p.placements}, and a summand cannot be updated: "
            "redistribute it to Shard or Replicate"
        )


def shard_of(name: str, tensor: Any, p: Any) -> Any:
    """Return what is in this process of a gradient or a state, which lies as its parameter does.

    One with other placements is redistributed, as PyTorch's optimizers do it: so the sum of a Partial one is taken.

    Raises
    ------
    TypeError
        If only one of the two is a DTensor, or they are on different meshes.
    """
    if is_distributed(tensor) is not is_distributed(p):
        which = (
            "a DTensor, and its parameter is none" if is_distributed(tensor) else "none, and its parameter is a DTensor"
        )
        raise TypeError(f"{name} must be a DTensor where its parameter is one, and only there; it is {which}")
    if is_distributed(p) and tensor.placements != p.placements:
        if tensor.device_mesh != p.device_mesh:
            raise TypeError(
                f"{name} must be on the device mesh of its parameter, {p.device_mesh}; got {tensor.device_mesh}"
            )
        tensor = tensor.redistribute(placements=p.placements)
    return local_of(tensor)


def distributed_as(p: Any, local: torch.Tensor) -> torch.Tensor:
    """Return `local` as what is in this process of a tensor that lies as a parameter does.

    ``DTensor.from_local`` would move it to the device of the mesh, where the states of an offloaded parameter must not
    be.
    """
    if not is_distributed(p):
        return local
    spec = p._spec
    meta = spec.tensor_meta._replace(dtype=local.dtype)
    if local.shape != local_of(p).shape:  # each process has all of it
        meta = meta._replace(shape=local.shape, stride=local.stride())
    kind: Any = sys.modules["torch.distributed.tensor"].DTensor
    made: torch.Tensor = kind(local, dataclasses.replace(spec, tensor_meta=meta), requires_grad=False)
    return made


#: What of a limit is none.
_NO_LIMIT = (None, "propagate")


def check_limits(limits: Mapping[str, Any], group: Mapping[str, Any]) -> None:
    """Raise where gradients are limited by their norm, and an optimizer has only a part of them that looks whole.

    ``ZeroRedundancyOptimizer`` gives the optimizer of a process some of the parameters, in groups that hold all
    arguments. ``FullyShardedDataParallel`` has shards that are plain tensors, and marks them.

    Raises
    ------
    TypeError
        Naming the limit.
    """
    for name in ("clip_norm", "nonfinite"):
        value = limits[name]
        if group.get(name) not in _NO_LIMIT:
            raise TypeError(
                f"a group has {name!r}, which is about the gradients of all groups together. (ZeroRedundancyOptimizer "
                "puts it there, and gives each process a part of the parameters: call torch.nn.utils.clip_grad_norm_("
                "model.parameters(), ...) before its step instead)"
            )
        if value not in _NO_LIMIT and any(getattr(p, "_fsdp_flattened", False) for p in group["params"]):
            raise TypeError(
                f"{name} is about all gradients, of which FullyShardedDataParallel shows a process its part alone: use "
                "fully_shard, or call model.clip_grad_norm_(...) before the step instead"
            )


class AllShards:
    """The reduction of gradients that are sharded: all processes have the same results, to the bit.

    Each adds the squares of its shards, in the order of the parameters. These sums are gathered, and added in the order
    of the processes, along one dimension of the mesh after the other. Of replicas the first counts.

    Parameters
    ----------
    reduction : Reduction
        Of what is in this process.
    label : Structure
        How an error names parameters.
    params : sequence of torch.Tensor
    """

    def __init__(self, reduction: Reduction, label: Structure, params: Sequence[Any]) -> None:
        self._reduction = reduction
        self.run = reduction.run
        meshes = [p.device_mesh if is_distributed(p) else None for p in params]
        self._meshes = list(dict.fromkeys(mesh for mesh in meshes if mesh is not None))
        for t, mesh in enumerate(meshes):
            if mesh is not None and mesh.get_coordinate() is None:
                raise TypeError(
                    f"{label.label('params', t)} is on a device mesh without this process, {mesh}: clip_norm and "
                    "nonfinite are about all shards of all parameters"
                )
        meshes = [self._meshes[0] if mesh is None else mesh for mesh in meshes]  # plain ones are replicas on the first
        #: Which parameters are on each.
        self._members = [
            np.array([t for t, own in enumerate(meshes) if own == mesh], np.int64) for mesh in self._meshes
        ]
        self._counts = np.array([_is_first(p, self._meshes[0]) for p in params], np.bool_)

    def read(self) -> Reduced:
        """Return the results, after all processes have come here."""
        found = self._reduction.read()
        total, most = 0.0, 0.0
        for mesh, members in zip(self._meshes, self._members, strict=True):
            counted = members[self._counts[members]]
            values = [float(found.squares[counted].sum()), _largest(found.largest[members])]
            for dim in range(mesh.ndim):
                sums, each = zip(*_gathered(values, mesh, dim), strict=True)
                values = [sum(sums), _largest(np.array(each))]
            total, most = total + values[0], _largest(np.array([most, values[1]]))
        largest = found.largest
        if not (math.isfinite(total) and most <= LEAST_MAX):  # so it is in all processes
            largest = self._largest_of_all(largest)
        return Reduced(found.squares, largest, total, most)

    def _largest_of_all(self, largest: Array) -> Array:
        """Return the largest absolute value of each gradient in all processes; infinity for a NaN."""
        largest = np.where(np.isnan(largest), np.inf, largest)
        for mesh, members in zip(self._meshes, self._members, strict=True):
            for dim in range(mesh.ndim):
                largest[members] = np.max(_gathered(largest[members], mesh, dim), axis=0)
        return largest


def _largest(values: Array) -> float:
    """Return the largest of some values; NaN if one is, 0 of none."""
    return float(np.max(values, initial=0.0))


def _is_first(p: Any, first: Any) -> bool:
    """Say whether this process is the first of those that have the same shard of a parameter."""
    if not is_distributed(p):
        return not any(first.get_coordinate())
    pairs = zip(p.device_mesh.get_coordinate(), p.placements, strict=True)
    return all(place == 0 for place, placement in pairs if placement.is_replicate())


def _gathered(values: Any, mesh: Any, dim: int) -> list[Any]:
    """Return what each process along a dimension of a mesh gives, in their order."""
    mine = torch.tensor(values, dtype=torch.float64, device=mesh.device_type)
    every = [torch.empty_like(mine) for _ in range(mesh.size(dim))]
    torch.distributed.all_gather(every, mine, group=mesh.get_group(dim))
    return [own.tolist() for own in every]
