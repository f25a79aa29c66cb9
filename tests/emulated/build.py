"""Builds the emulated CUDA libraries and puts them where torch's wheel has NVIDIA's: python -m tests.emulated.build

Runs in the environment that it changes, which holds torch's CUDA build and nothing that is dear to anybody.
"""

import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

from tests.emulated.stubs import stubs

HERE = Path(__file__).parent
SOURCES = HERE / "cuda"
PACKAGES = Path(sysconfig.get_path("purelib"))
NVIDIA, TORCH = PACKAGES / "nvidia", PACKAGES / "torch"
CUDA = NVIDIA / "cu13"
OBJECTS = Path(sys.prefix, "emulated")
INCLUDED = [f"-I{folder}" for folder in (SOURCES, CUDA / "include", NVIDIA / "nccl" / "include")]
FLAGS = ["-O2", "-g", "-fPIC", "-Wall", "-Wno-unknown-pragmas", "-fvisibility=hidden"]


class Library(NamedTuple):
    """One shared library. ``stubs``: the pattern of symbols that must be there, and what a call of one returns."""

    path: Path
    sources: tuple[str, ...]
    flags: tuple[str, ...] = ()
    stubs: tuple[str, int] | None = None
    version: bool = False  # whether its symbols carry its name as their version
    needs_runtime: bool = True


RUNTIME = Library(
    CUDA / "lib" / "libcudart.so.13",
    ("settings", "ledger", "stream", "process", "devices", "memory", "streams", "kernels", "driver"),
    flags=("-DINSIDE_RUNTIME",),
    stubs=(r"(__)?cuda\w+@libcudart\.so\.13", 801),  # cudaErrorNotSupported
    version=True,
    needs_runtime=False,
)
LIBRARIES = (
    RUNTIME,
    Library(CUDA / "lib" / "libcuda.so.1", ("driver",), stubs=(r"cu(?!File)[A-Z][a-z]\w+", 801)),
    Library(CUDA / "lib" / "libnvidia-ml.so.1", ("nvml",), needs_runtime=False),
    Library(
        CUDA / "lib" / "libcublas.so.13",
        ("cublas",),
        stubs=(r"cublas\w+@libcublas\.so\.13", 15),  # CUBLAS_STATUS_NOT_SUPPORTED
        version=True,
    ),
    Library(
        CUDA / "lib" / "libcublasLt.so.13",
        ("cublas",),
        flags=("-DLT",),
        stubs=(r"cublasLt\w+@libcublasLt\.so\.13", 15),
        version=True,
    ),
    Library(
        NVIDIA / "nccl" / "lib" / "libnccl.so.2", ("nccl", "transfer"), stubs=(r"p?nccl\w+", 5)
    ),  # ncclInvalidUsage
)
OPERATORS = CUDA / "lib" / "libemulated_operators.so"


def run(*command: object) -> None:
    """Raises CalledProcessError where it fails."""
    subprocess.run([str(word) for word in command], check=True)


def linked(path: Path, objects: list[Path], *flags: object) -> None:
    """Replaces the library at ``path``; processes that use the old one keep it."""
    made = path.with_name(path.name + ".new")
    run("g++", "-shared", "-o", made, *objects, f"-Wl,-soname,{path.name}", *flags)
    made.replace(path)


def build(library: Library) -> None:
    """Compiles the sources, adds stubs for what they lack, and links."""
    folder = OBJECTS / library.path.name
    folder.mkdir(parents=True, exist_ok=True)
    objects = []
    for name in library.sources:
        objects.append(folder / f"{name}.o")
        run("g++", "-std=c++17", *FLAGS, *library.flags, *INCLUDED, "-c", SOURCES / f"{name}.cpp", "-o", objects[-1])
    if library.stubs is not None:
        pattern, result = library.stubs
        source = folder / "stubs.cpp"
        source.write_text(stubs(pattern, result, [*TORCH.glob("lib/*.so"), *NVIDIA.glob("*/lib/*.so*")], objects))
        objects.append(folder / "stubs.o")
        run("g++", *FLAGS, *INCLUDED, "-c", source, "-o", objects[-1])
    flags: list[object] = ["-lpthread"]
    if library.version:
        script = folder / "version"
        script.write_text(f"{library.path.name} {{ global: *; }};\n")
        flags.append(f"-Wl,--version-script={script}")
    if library.needs_runtime:
        flags.append(RUNTIME.path)
    linked(library.path, objects, *flags)


def build_operators() -> None:
    """The one library that is compiled against torch's headers; it takes some minutes."""
    folders = (TORCH / "include", TORCH / "include" / "torch" / "csrc" / "api" / "include")
    objects = []
    for name in ("operators", "attention"):
        objects.append(OBJECTS / f"{name}.o")
        include = [*INCLUDED, *(f"-isystem{folder}" for folder in folders)]
        flags = ["-std=c++20", *FLAGS, "-O1", "-g0", "-DUSE_CUDA"]
        run("g++", *flags, *include, "-c", SOURCES / f"{name}.cpp", "-o", objects[-1])
    torch_libraries = [f"-l{name}" for name in ("torch", "torch_cpu", "torch_cuda", "c10", "c10_cuda")]
    linked(OPERATORS, objects, f"-L{TORCH / 'lib'}", *torch_libraries, RUNTIME.path)


def main() -> None:
    """Refuses to touch any environment but one with torch's CUDA build."""
    version = (TORCH / "version.py").read_text()
    if "cuda: Optional[str] = None" in version:
        sys.exit(
            "the torch in this environment is a build without CUDA, which pip preferred: a configuration offers it;"
            " remove .venv-emulated and make it again without that"
        )
    for library in LIBRARIES:
        build(library)
    build_operators()
    run(sys.executable, "-m", "pip", "install", "--quiet", HERE / "plugin")


if __name__ == "__main__":
    main()
