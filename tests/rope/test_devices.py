"""Arrays of other libraries: PyTorch on the CPU, DLPack, and CUDA arrays without a device."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from typing import Any

import numpy as np
import pytest

from ggufext.errors import NativeError
from ggufext.rope import rotate, rotate_qk

INV_FREQ = 10_000.0 ** (-np.arange(32) / 32)
HAS_CUDA_MODULE = importlib.util.find_spec("ggufext._cuda") is not None


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16"])
def test_torch_tensors_are_rotated_without_a_copy(
    name: str, torch: Any, draw: Any, layout: Any
) -> None:
    x = torch.from_numpy(draw((5, 3, 64))).to(getattr(torch, name))
    positions = torch.arange(5)
    options: Any = {"inv_freq": INV_FREQ, "layout": layout}
    new = rotate(x, positions, **options)
    assert new.dtype == x.dtype
    address = x.data_ptr()
    assert rotate(x, positions, out=x, **options) is x
    assert x.data_ptr() == address
    assert torch.equal(x, new)
    reference = rotate(draw((5, 3, 64)), np.arange(5), **options)
    tolerance = {"float32": 0, "float16": 4e-3, "bfloat16": 3e-2}[name]
    assert np.abs(new.float().numpy() - reference).max() <= tolerance


def test_torch_views_keep_their_strides(torch: Any, draw: Any) -> None:
    qkv = torch.from_numpy(draw((6, 12, 64)))
    expected = rotate(qkv.numpy()[:, :10], np.arange(6), inv_freq=INV_FREQ)
    q, k = qkv[:, :8], qkv[:, 8:10]
    rotate_qk(q, k, torch.arange(6), inv_freq=INV_FREQ, out=(q, k))
    assert np.array_equal(qkv[:, :10].numpy(), expected)


def test_a_torch_tensor_that_needs_a_gradient_is_refused_by_name(torch: Any) -> None:
    x = torch.ones((2, 1, 64), requires_grad=True)
    with pytest.raises(ValueError, match=r"^x: .*detach"):
        rotate(x, [0, 1], inv_freq=INV_FREQ)


class Exported:
    """An array of a library that nobody knows, with DLPack."""

    def __init__(self, array: Any, device: tuple[int, int] = (1, 0)) -> None:
        self.array, self.device = array, device

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, *, stream: Any = None) -> Any:  # no max_version: an older producer
        return self.array.__dlpack__()


def test_any_array_with_dlpack_is_rotated_in_place(draw: Any) -> None:
    memory = draw((5, 3, 64))
    expected = rotate(memory, np.arange(5), inv_freq=INV_FREQ)
    x = Exported(memory)
    assert rotate(x, np.arange(5), inv_freq=INV_FREQ, out=x) is x
    assert np.array_equal(memory, expected)


def test_an_unknown_library_needs_an_output(draw: Any) -> None:
    with pytest.raises(ValueError, match="out: is needed for arrays of type Exported"):
        rotate(Exported(draw((5, 3, 64))), np.arange(5), inv_freq=INV_FREQ)


class Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("id", ctypes.c_int32))


class Managed(ctypes.Structure):
    """DLManagedTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", Device),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


class FakeDlpack:
    """A tensor that says it lies on a device. Its memory is never to be touched."""

    def __init__(
        self, shape: tuple[int, ...], *, device: tuple[int, int] = (2, 0), bits: int = 32
    ) -> None:
        self.device = device
        self.shape = (ctypes.c_int64 * len(shape))(*shape)
        self.managed = Managed(
            data=0x7000_0000_0000,
            device=Device(*device),
            ndim=len(shape),
            code=2,
            bits=bits,
            lanes=1,
            shape=self.shape,
        )

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, *, stream: Any = None, max_version: Any = None) -> Any:
        make = ctypes.pythonapi.PyCapsule_New
        make.restype, make.argtypes = (
            ctypes.py_object,
            [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p],
        )
        return make(ctypes.addressof(self.managed), b"dltensor", None)


class FakeInterface:
    """The same through __cuda_array_interface__."""

    def __init__(
        self, shape: tuple[int, ...], *, stream: int | None = None, **changes: Any
    ) -> None:
        self.__cuda_array_interface__ = {
            "shape": shape,
            "typestr": "<f4",
            "data": (0x7000_0000_0000, False),
            "version": 3,
            "stream": stream,
        } | changes


SHAPE = (4, 2, 64)


@pytest.mark.parametrize("fake", [FakeDlpack(SHAPE), FakeInterface(SHAPE)], ids=["dlpack", "cai"])
def test_a_cuda_output_for_a_tensor_on_the_cpu_is_refused(fake: Any, draw: Any) -> None:
    with pytest.raises(ValueError, match="out: lies on CUDA device 0, expected the CPU like x"):
        rotate(draw(SHAPE), np.arange(4), inv_freq=INV_FREQ, out=fake)


def test_mixed_devices_are_named(draw: Any) -> None:
    with pytest.raises(ValueError, match="k: lies on CUDA device 3 but q on the CPU"):
        rotate_qk(draw(SHAPE), FakeDlpack(SHAPE, device=(2, 3)), np.arange(4), inv_freq=INV_FREQ)
    x = draw(SHAPE)
    positions = FakeInterface((4,), typestr="<i8")
    with pytest.raises(ValueError, match="positions: lies on CUDA device 0, expected the CPU"):
        rotate(x, positions, inv_freq=INV_FREQ, out=x)


def test_a_device_of_another_kind_is_refused() -> None:
    x = FakeDlpack(SHAPE, device=(10, 0))
    with pytest.raises(ValueError, match="x: lies on a device of DLPack type 10"):
        rotate(x, np.arange(4), inv_freq=INV_FREQ, out=x)


def test_without_the_cuda_module_the_error_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ggufext._cuda", None)
    x = FakeInterface(SHAPE)
    with pytest.raises(NativeError, match="GGUFEXT_CUDA=ON") as caught:
        rotate(x, np.arange(4), inv_freq=INV_FREQ, out=x)
    assert caught.value.code == "not_built"


def test_the_cuda_module_is_not_loaded_for_tensors_on_the_cpu(draw: Any) -> None:
    rotate(draw(SHAPE), np.arange(4), inv_freq=INV_FREQ)
    assert HAS_CUDA_MODULE or "ggufext._cuda" not in sys.modules


needs_cuda_module = pytest.mark.skipif(
    not HAS_CUDA_MODULE, reason="built without CUDA: no nvcc was found"
)


@needs_cuda_module
@pytest.mark.parametrize(
    ("fake", "message"),
    [
        (FakeInterface((4, 64)), "x: has 2 dimensions"),
        (FakeInterface(SHAPE, typestr="<f8"), "x: has elements of float64"),
        (FakeInterface(SHAPE, strides=(512, 256, 8)), "x: the last axis has a stride of 8"),
        (FakeInterface(SHAPE, data=(0x7000_0000_0002, False)), "x: its address or strides"),
        (FakeInterface(SHAPE, data=(0x7000_0000_0000, True)), "out: is read-only"),
        (FakeInterface(SHAPE, mask=object()), "x: is a masked array"),
        (FakeInterface((4, 2, 30)), "more than head_dim 30"),
        (FakeDlpack(SHAPE, bits=64), "x: has elements of float64"),
        (FakeDlpack((5, 2, 64)), "positions: has shape [4], expected [5]"),
    ],
)
def test_cuda_arrays_are_checked_before_a_device_is_asked_for(fake: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        rotate(fake, np.arange(4), inv_freq=INV_FREQ, out=fake)
    assert message in str(caught.value)


@needs_cuda_module
def test_positions_on_the_host_are_checked_before_a_device_is_asked_for() -> None:
    x = FakeInterface(SHAPE)
    with pytest.raises(ValueError, match="positions: -1 at index 0"):
        rotate(x, [-1, 0, 0, 0], inv_freq=INV_FREQ, out=x)


@needs_cuda_module
def test_too_many_frequencies_for_a_launch_are_refused() -> None:
    x = FakeInterface((4, 2, 600))
    with pytest.raises(ValueError, match="inv_freq: has 257 frequencies, expected at most 256"):
        rotate(x, np.arange(4), inv_freq=np.ones(257), out=x)


def has_device() -> bool:
    from ggufext import _cuda

    try:
        return bool(_cuda.device_count())
    except NativeError:
        return False


@needs_cuda_module
def test_a_missing_device_is_a_named_error() -> None:
    if has_device():
        pytest.skip("a CUDA device is here")
    x = FakeInterface(SHAPE)
    with pytest.raises(NativeError, match="failed: cudaError") as caught:
        rotate(x, np.arange(4), inv_freq=INV_FREQ, out=x)
    assert caught.value.code == "cuda_failed"
