"""CUDA without a GPU: tensors that report the device cuda:0 and compute on the CPU.

`FakeTensorMode` finds tensors on different devices too, but has no values: it stops at the first decision that depends
on one. Here all operations run on the CPU with their values, under the rules of CUDA: tensors of both devices in one
operation, and a tensor of the GPU as a numpy array, are errors.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

_DEVICE = torch.device("cuda", 0)
_aten = torch.ops.aten
# These operations copy between the devices, or take indices from the CPU.
_MIXED = (_aten.copy_, _aten._to_copy, _aten.index, _aten.index_put_, _aten.index_put, _aten._index_put_impl_)


class CudaTensor(torch.Tensor):
    """A tensor that reports the device cuda:0; `values` are its values on the CPU."""

    values: torch.Tensor

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> Self:
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            layout=values.layout,
            device="meta",  # as for torch's fake tensors: the C++ code starts no CUDA stream
        )
        tensor.values = values
        return tensor

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Return cuda:0."""
        return _DEVICE

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        """Return True."""
        return True

    def __deepcopy__(self, memo: dict[int, Any]) -> "CudaTensor":
        copied = self.detach().clone().requires_grad_(self.requires_grad)
        copied.__dict__.update({k: v for k, v in self.__dict__.items() if k != "values"})
        memo[id(self)] = copied
        return copied

    def __repr__(self) -> str:
        return f"CudaTensor({self.values!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _EmulatedCuda(TorchDispatchMode):
    """Create tensors with `device="cuda"` as `CudaTensor`.

    The mode has the key of the fake mode, so that torch does not look for a CUDA driver.
    """

    _mode_key = torch._C._TorchDispatchModeKey.FAKE

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


@contextmanager
def emulated_cuda() -> Iterator[None]:
    """Emulate one CUDA device in the context."""
    lifted = torch._C._only_lift_cpu_tensors()
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # moved parameters are new tensors
    torch._C._set_only_lift_cpu_tensors(True)
    torch._C._ensureCUDADeviceGuardSet()  # a guard that does nothing where there is no driver
    try:
        with _EmulatedCuda():
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(lifted)
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)


def _run(func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    if kwargs.get("device") is None and not any(isinstance(each, CudaTensor | tuple | list) for each in args):
        return func(*args, **kwargs)
    flat, _ = tree_flatten((args, kwargs))
    tensors = [each for each in flat if isinstance(each, torch.Tensor)]
    on_gpu = any(isinstance(each, CudaTensor) for each in tensors)
    packet = getattr(func, "overloadpacket", None)
    if on_gpu and packet not in _MIXED and any(not isinstance(each, CudaTensor) and each.dim() for each in tensors):
        raise RuntimeError(f"Expected all tensors to be on the same device: {func}")
    if kwargs.get("device") is not None:
        on_gpu = torch.device(kwargs["device"]).type in ("cuda", "meta")
        kwargs = kwargs | {"device": torch.device("cpu")}
    unwrap = lambda tree: tree_map_only(CudaTensor, lambda each: each.values, tree)  # noqa: E731
    if packet is _aten.copy_:
        on_gpu = isinstance(args[0], CudaTensor)
    result = func(*unwrap(args), **unwrap(kwargs))
    if not on_gpu:
        return result
    given = {id(each.values): each for each in tensors if isinstance(each, CudaTensor)}
    return tree_map_only(torch.Tensor, lambda each: given[id(each)] if id(each) in given else CudaTensor(each), result)
