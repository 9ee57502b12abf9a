# SPDX-License-Identifier: Apache-2.0
"""Makes the PTX of each kernel with NVIDIA's run-time compiler, which needs no GPU:

    python3 -m pip install --target DIR nvidia-cuda-nvrtc-cu12==12.0.140
    python3 src/cuda/make_ptx.py DIR

Of CUDA 12.0, because a driver takes PTX of its own and of earlier versions only. The first lines of a file name the source by
its hash; a test compares.
"""

import ctypes
import hashlib
import pathlib
import sys

here = pathlib.Path(__file__).parent
library = next(pathlib.Path(sys.argv[1]).glob("nvidia/cuda_nvrtc/lib/libnvrtc.so.*"))
nvrtc = ctypes.CDLL(str(library))


def call(name, *arguments):
    code = getattr(nvrtc, name)(*arguments)
    if code:
        nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise SystemExit(f"{name}: {nvrtc.nvrtcGetErrorString(code).decode()}\n{log()}")


def text(size, get):
    length = ctypes.c_size_t()
    call(size, program, ctypes.byref(length))
    buffer = ctypes.create_string_buffer(length.value)
    call(get, program, buffer)
    return buffer.value.decode()


def log():
    return text("nvrtcGetProgramLogSize", "nvrtcGetProgramLog")


major, minor = ctypes.c_int(), ctypes.c_int()
call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
options = [b"--gpu-architecture=compute_75", b"--fmad=false", b"--ftz=false"]
for name in ("picture", "step", "surface"):
    source = (here / f"{name}.cu").read_bytes()
    program = ctypes.c_void_p()
    call("nvrtcCreateProgram", ctypes.byref(program), source, f"{name}.cu".encode(), 0, None, None)
    call("nvrtcCompileProgram", program, len(options), (ctypes.c_char_p * len(options))(*options))
    ptx = text("nvrtcGetPTXSize", "nvrtcGetPTX")
    head = (
        "// SPDX-License-Identifier: Apache-2.0\n"
        f"// Made by make_ptx.py with NVRTC {major.value}.{minor.value} ({' '.join(o.decode() for o in options)})\n"
        f"// of {name}.cu, SHA-256 {hashlib.sha256(source).hexdigest()}\n"
    )
    (here / f"{name}.ptx").write_text(head + ptx)
    print(f"{here / f'{name}.ptx'}: {len(ptx)} characters")
