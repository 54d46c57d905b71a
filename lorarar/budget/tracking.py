"""Counting without computing: bytes that are alive, and floating-point operations, on fake tensors."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

# What torch's counter does not know: attention as a CPU does it. Arguments are shapes.
_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(
        q, k, v
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda gradient, q, k, v, *_, **__: sdpa_backward_flop_count(gradient, q, k, v)
    ),
}


class Tracker(TorchDispatchMode):
    """Follows the bytes of all storages that operations make while the mode is on.

    ``now`` and ``peak`` are bytes. Views share their storage; a storage counts until nothing refers to it,
    autograd's graph included. Storages from before count once an operation returns them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, tuple[weakref.ref[Any], int]] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Run an operation and count what it has made."""
        answer = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(answer):
            if isinstance(leaf, Tensor):
                self._add(leaf.untyped_storage())
        return answer

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            self.now -= self._known[key][1]  # it may have been resized
        self._known[key] = weakref.ref(storage, lambda _: self._remove(key)), size
        self.now += size
        self.peak = max(self.peak, self.now)

    def _remove(self, key: int) -> None:
        _, size = self._known.pop(key)
        self.now -= size


class Count(NamedTuple):
    """What a step takes: bytes at the peak, everything it keeps included, and floating-point operations."""

    memory: int
    operations: int


@contextmanager
def counting() -> Iterator[tuple[Tracker, FlopCounterMode]]:
    """Count memory and operations of the block; torch works in one thread there, for modes belong to one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.collect()
    try:
        with FlopCounterMode(display=False, custom_mapping=_ATTENTION) as flops, Tracker() as tracker:
            yield tracker, flops
    finally:
        torch.set_num_threads(threads)


@contextmanager
def faked() -> Iterator[None]:
    """Let tensors of the block be fake: shapes and types, no numbers."""
    from torch._subclasses import FakeTensorMode

    # A module that is converted swaps its fake parameters, which torch refuses while anything, its own fake
    # mode included, refers to them weakly. Taking over the new storage does the same.
    swap, torch.utils.swap_tensors = torch.utils.swap_tensors, lambda one, other: setattr(one, "data", other)
    try:
        with FakeTensorMode():
            yield
    finally:
        torch.utils.swap_tensors = swap
