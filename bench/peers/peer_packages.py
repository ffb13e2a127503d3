"""Where each peer's package is, and how it gets there: virtual environments and libraries under build/peers."""
import glob
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# ggml: only its CPU part is built, from the source package, for the CPU it will run on.
LLAMA_CPP = "llama-cpp-python==0.3.36"
# oneDNN 3.6.2 with GNU OpenMP and its graph API: the newest without SYCL that a package carries.
PADDLE = "paddlepaddle==3.3.1"
# What a build for another CPU than this one is told; "native" asks the compiler.
GGML_CPUS = {"native": ["-DGGML_NATIVE=ON"],
             "sapphirerapids": ["-DGGML_NATIVE=OFF", *(f"-DGGML_{feature}=ON" for feature in (
                 "SSE42", "AVX", "AVX2", "FMA", "F16C", "BMI2", "AVX512", "AVX512_VBMI", "AVX512_VNNI", "AVX512_BF16",
                 "AVX_VNNI", "AMX_TILE", "AMX_INT8", "AMX_BF16"))]}
GGML_LIBRARIES = ("libggml-base.so", "libggml-cpu.so")


class Failure(Exception):
    """One line for the user."""


def run(*command):
    """Failure with its last line if it fails."""
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False)
    if done.returncode:
        said = [line for line in done.stdout.splitlines() if line.strip()] or ["no message"]
        raise Failure(f"{pathlib.Path(command[0]).name} {' '.join(map(str, command[1:4]))}...: {said[-1][:200]}")


def venv(folder, name):
    """The interpreter of the environment of that name, made and filled if it is not there."""
    place, wanted = folder / name, HERE / "requirements" / f"{name}.txt"
    python, stamp = place / "bin" / "python", place / "requirements.installed"
    if stamp.exists() and stamp.read_text() == wanted.read_text():
        return python
    print(f"installing {wanted.relative_to(ROOT)}", file=sys.stderr)
    run(sys.executable, "-m", "venv", "--clear", place)
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", wanted)
    shutil.copy(wanted, stamp)
    return python


def ggml(folder, cpu, tools):
    """The folder of ggml's libraries for that CPU, built if they are not there. tools: bin/ with cmake and ninja."""
    place = folder / f"ggml-{cpu}"
    if all((place / name).exists() for name in GGML_LIBRARIES):
        return place
    print(f"building ggml of {LLAMA_CPP} for {cpu}", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        run(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary",
            LLAMA_CPP.split("==")[0], "--dest", work, LLAMA_CPP)
        source = glob.glob(os.path.join(work, "llama_cpp_python-*.tar.gz"))
        shutil.unpack_archive(source[0], work, filter="data")
        tree = glob.glob(os.path.join(work, "llama_cpp_python-*", "vendor", "llama.cpp"))[0]
        build = os.path.join(work, "build")
        run(tools / "cmake", "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}", "-S", tree, "-B", build,
            "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=ON", "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON",
            "-DCMAKE_INSTALL_RPATH=$ORIGIN", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF",
            "-DLLAMA_BUILD_TOOLS=OFF", "-DLLAMA_BUILD_SERVER=OFF", "-DLLAMA_BUILD_COMMON=OFF", *GGML_CPUS[cpu])
        run(tools / "ninja", "-C", build, "ggml")
        built = glob.glob(os.path.join(build, "bin", "libggml*.so*"))
        if not {os.path.basename(library) for library in built} >= set(GGML_LIBRARIES):
            raise Failure(f"the build of {LLAMA_CPP} made no {' and '.join(GGML_LIBRARIES)}")
        place.mkdir(exist_ok=True)
        for library in built:
            shutil.copy(library, place, follow_symlinks=False)
    return place


def onednn(folder):
    """libdnnl.so.3, taken out of the wheel that carries it."""
    place = folder / "onednn"
    if not (place / "libdnnl.so.3").exists():
        print(f"fetching oneDNN out of {PADDLE}", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            run(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                "--only-binary=:all:", "--dest", work, PADDLE)
            with zipfile.ZipFile(glob.glob(os.path.join(work, "*.whl"))[0]) as wheel:
                data = wheel.read("paddle/libs/libdnnl.so.3")
        place.mkdir(exist_ok=True)
        (place / "libdnnl.so.3").write_bytes(data)
    return place / "libdnnl.so.3"
