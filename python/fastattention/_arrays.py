"""Arrays in and out: numpy's and whatever speaks DLPack, seen as a pointer, a type, a shape and strides in elements.

DLPack capsules are read and made by ctypes, so no array library is imported and bfloat16 passes, which numpy's own
DLPack does not know."""
import ctypes
import sys
from ctypes import POINTER, Structure, c_int32, c_int64, c_uint8, c_uint16, c_uint64, c_void_p

import numpy

from ._library import ArgumentError

# name -> (DLPack type code, bits, how numpy stores it when it lacks the type)
TYPES = {"float32": (2, 32, "f4"), "float16": (2, 16, "f2"), "bfloat16": (4, 16, "u2"), "int8": (0, 8, "i1"),
         "float8_e4m3fn": (10, 8, "u1"), "uint8": (1, 8, "u1"), "bool": (6, 8, "?"), "int32": (0, 32, "i4"),
         "int64": (0, 64, "i8"), "float64": (2, 64, "f8")}
NAMES = {(code, bits): name for name, (code, bits, _) in TYPES.items()}
CPU, CUDA_HOST = 1, 3


class _DLTensor(Structure):
    _fields_ = [("data", c_void_p), ("device_type", c_int32), ("device_id", c_int32), ("ndim", c_int32),
                ("code", c_uint8), ("bits", c_uint8), ("lanes", c_uint16), ("shape", POINTER(c_int64)),
                ("strides", POINTER(c_int64)), ("byte_offset", c_uint64)]


class _DLManagedTensor(Structure):
    pass


class _DLVersioned(Structure):
    pass  # since DLPack 1.0: says whether the memory may be written


_Deleter = ctypes.CFUNCTYPE(None, POINTER(_DLManagedTensor))
_DLManagedTensor._fields_ = [("tensor", _DLTensor), ("context", c_void_p), ("deleter", _Deleter)]

_DLVersioned._fields_ = [("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("context", c_void_p),
                         ("deleter", c_void_p), ("flags", c_uint64), ("tensor", _DLTensor)]
READ_ONLY = 1

_api = ctypes.pythonapi
_api.PyCapsule_GetPointer.restype = c_void_p
_api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_api.PyCapsule_IsValid.restype = ctypes.c_int
_api.PyCapsule_IsValid.argtypes = [ctypes.py_object, ctypes.c_char_p]
_api.PyCapsule_New.restype = ctypes.py_object
_api.PyCapsule_New.argtypes = [c_void_p, ctypes.c_char_p, c_void_p]
# The destructor sees a capsule that is already dying: it must travel as a plain address, never as an object.
_capsule_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_capsule_pointer = ctypes.PYFUNCTYPE(c_void_p, c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))


class View:
    """Memory of somebody else's array, or of a copy of it; `owner` keeps it alive."""

    def __init__(self, owner, address, dtype, shape, strides, writable, copied=False):
        self.owner = owner
        self.address = address
        self.dtype = dtype
        self.shape = tuple(shape)
        self.strides = tuple(strides)
        self.writable = writable
        self.copied = copied

    @property
    def last_is_contiguous(self):
        return not self.shape or self.strides[-1] == 1 or self.shape[-1] <= 1 or 0 in self.shape

    def array(self):
        """The same memory as a numpy array (uint16 for bfloat16, uint8 for float8)."""
        stored = numpy.dtype(TYPES[self.dtype][2])
        if 0 in self.shape:
            return numpy.empty(self.shape, stored)
        reach = [(n - 1) * s * stored.itemsize for n, s in zip(self.shape, self.strides)]
        low, high = sum(r for r in reach if r < 0), sum(r for r in reach if r > 0) + stored.itemsize
        memory = (ctypes.c_char * (high - low)).from_address(self.address + low)
        return numpy.ndarray(self.shape, stored, memory, -low, [s * stored.itemsize for s in self.strides])

    def contiguous(self):
        """A packed copy."""
        view = view_of_numpy(numpy.array(self.array(), order="C", copy=True), "copy", self.dtype)
        view.copied = True
        return view


def view_of_numpy(array, name, dtype=None):
    dtype = dtype or array.dtype.name
    if dtype not in TYPES or not array.dtype.isnative:
        raise ArgumentError(f"{name} is of type {array.dtype}; float32, float16 and bfloat16 (ml_dtypes) are computed: "
                            "convert it with .astype")
    size = array.dtype.itemsize
    copied = not array.flags.aligned or any(stride % size for stride in array.strides)
    if copied:
        array = numpy.array(array, order="C", copy=True)
    return View(array, array.ctypes.data, dtype, array.shape, [stride // size for stride in array.strides],
                array.flags.writeable, copied)


def view_of(array, name):
    """The View of a numpy array or of anything with __dlpack__ on the CPU."""
    if isinstance(array, numpy.ndarray):
        return view_of_numpy(array, name)
    if isinstance(array, Array):
        return view_of_numpy(array.storage, name, array.dtype)
    if not hasattr(array, "__dlpack__"):
        raise ArgumentError(f"{name} is a {type(array).__name__}; a numpy array or an object with __dlpack__ is needed")
    if hasattr(array, "__dlpack_device__"):
        kind = int(array.__dlpack_device__()[0])
        if kind not in (CPU, CUDA_HOST):
            raise ArgumentError(f"{name} is on a device of DLPack type {kind}; this build computes on the CPU: move it "
                                "there first")
    capsule, tensor, writable = _import(array)
    dtype = NAMES.get((tensor.code, tensor.bits)) if tensor.lanes == 1 else None
    if dtype is None:
        raise ArgumentError(f"{name} is of DLPack type code {tensor.code} with {tensor.bits} bits; float32, float16 and "
                            "bfloat16 are computed")
    shape = tensor.shape[:tensor.ndim] if tensor.ndim else []
    if tensor.strides:
        strides = tensor.strides[:tensor.ndim]
    else:  # packed
        strides = [1] * len(shape)
        for axis in range(len(shape) - 2, -1, -1):
            strides[axis] = strides[axis + 1] * shape[axis + 1]
    # Unconsumed, the capsule frees what it holds when it goes: it is the owner.
    return View(capsule, (tensor.data or 0) + tensor.byte_offset, dtype, shape, strides, writable)


def _import(array):
    """(capsule, its tensor, whether that may be written); producers before DLPack 1.0 cannot say, and mean yes."""
    try:
        capsule = array.__dlpack__(max_version=(1, 0))
    except TypeError:
        capsule = array.__dlpack__()
    if _api.PyCapsule_IsValid(capsule, b"dltensor_versioned"):
        held = ctypes.cast(_api.PyCapsule_GetPointer(capsule, b"dltensor_versioned"), POINTER(_DLVersioned)).contents
        if held.major != 1:
            raise ArgumentError(f"the array speaks DLPack {held.major}.{held.minor}; 1.x and before are understood")
        return capsule, held.tensor, not held.flags & READ_ONLY
    held = ctypes.cast(_api.PyCapsule_GetPointer(capsule, b"dltensor"), POINTER(_DLManagedTensor)).contents
    return capsule, held.tensor, True


class Array:
    """A result for a caller whose library has no from_dlpack: hands itself on by DLPack, or as numpy's `storage`
    (uint16 for bfloat16)."""

    def __init__(self, storage, dtype):
        self.storage = storage
        self.dtype = dtype
        self.shape = storage.shape

    def __dlpack_device__(self):
        return (CPU, 0)

    def __dlpack__(self, *, stream=None, max_version=None, dl_device=None, copy=None):
        return _export(self.storage, self.dtype)

    def __repr__(self):
        return f"fastattention.Array(shape={self.shape}, dtype={self.dtype})"


_exported = {}  # address of the managed tensor -> all that must live until its deleter is called


@_Deleter
def _release(managed):
    _exported.pop(ctypes.addressof(managed.contents), None)


@ctypes.CFUNCTYPE(None, c_void_p)
def _capsule_destructor(capsule):
    if _capsule_is_valid(capsule, b"dltensor"):  # nobody consumed it
        _exported.pop(_capsule_pointer(capsule, b"dltensor"), None)


def _export(storage, dtype):
    code, bits, _ = TYPES[dtype]
    rank = storage.ndim
    shape = (c_int64 * rank)(*storage.shape)
    strides = (c_int64 * rank)(*[s // storage.itemsize for s in storage.strides])
    managed = _DLManagedTensor(_DLTensor(storage.ctypes.data, CPU, 0, rank, code, bits, 1, shape, strides, 0), None,
                               _release)
    address = ctypes.addressof(managed)
    _exported[address] = (managed, storage, shape, strides)
    return _api.PyCapsule_New(address, b"dltensor", ctypes.cast(_capsule_destructor, c_void_p))


class Result:
    """An output of the kind of `like`: numpy for numpy; what like's own library makes of it by from_dlpack; else an
    Array."""

    def __init__(self, like, dtype, shape):
        """Zeros, because rows that belong to no sequence of a ragged batch are never written."""
        self.like = like
        stored = like.dtype if isinstance(like, numpy.ndarray) and dtype == like.dtype.name else TYPES[dtype][2]
        self.storage = numpy.zeros(shape, stored)
        self.view = view_of_numpy(self.storage, "out", dtype)

    def give(self):
        if isinstance(self.like, numpy.ndarray):
            return self.storage
        array = Array(self.storage, self.view.dtype)
        module = sys.modules.get(type(self.like).__module__.split(".")[0])
        for place in (module, getattr(module, "dlpack", None)):
            if not isinstance(self.like, Array) and hasattr(place, "from_dlpack"):
                return place.from_dlpack(array)
        return array
