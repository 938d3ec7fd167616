"""The NVIDIA driver, asked without CuPy: which CUDA version can be used with it and with the card.

Needs nothing but Python, so it also runs before anything is installed: `python -I
gpujac/backends/driver.py` prints the major version, or nothing where there is no driver. That works
where `nvidia-smi` is missing, as in many containers.
"""

import ctypes
import sys
from typing import Any

_LIBRARIES = {"linux": "libcuda.so.1", "win32": "nvcuda.dll"}
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
_TURING = (7, 5)  # the oldest cards that CUDA 13 compiles for


def cuda_version() -> tuple[int, int] | None:
    """The newest CUDA version that the installed driver runs; None without a driver.

    Example:
        >>> version = cuda_version()
        >>> version is None or version > (10, 0)
        True
    """
    driver = _library()
    return None if driver is None else _version(driver)


def usable_major() -> int | None:
    """The newest major version of CUDA that the driver and the first card can use; None without them.

    A card older than Turing needs CUDA 12, also with a driver for CUDA 13.
    """
    driver = _library()
    version = None if driver is None else _version(driver)
    if version is None:
        return None
    capability = _capability(driver)
    return min(version[0], 12) if capability is not None and capability < _TURING else version[0]


def _library() -> Any:
    name = _LIBRARIES.get(sys.platform)
    if name is None:
        return None
    try:
        return ctypes.CDLL(name)
    except OSError:
        return None


def _version(driver: Any) -> tuple[int, int] | None:
    number = ctypes.c_int(0)
    if driver.cuDriverGetVersion(ctypes.byref(number)) != 0 or number.value <= 0:
        return None
    return number.value // 1000, number.value % 1000 // 10


def _capability(driver: Any) -> tuple[int, int] | None:
    """The compute capability of the first card; None where no card answers."""
    device, parts = ctypes.c_int(0), []
    if driver.cuInit(0) != 0 or driver.cuDeviceGet(ctypes.byref(device), 0) != 0:
        return None
    for attribute in (_MAJOR, _MINOR):
        number = ctypes.c_int(0)
        if driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device) != 0:
            return None
        parts.append(number.value)
    return parts[0], parts[1]


if __name__ == "__main__":
    found = usable_major()
    if found is not None:
        print(found)
