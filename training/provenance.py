"""Where a run comes from: the code's revision and the tools' versions."""

import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import keras

_TOOLS: Final = ("keras", "tensorflow", "tensorflow-cpu", "numpy", "pillow", "scikit-learn", "h5py")


def git_revision() -> str:
    """Returns the commit of this code, with "-dirty" if tracked files differ from it, or "unknown" outside of git."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    command = [git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    folder = Path(__file__).resolve().parent
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 (fixed words)
    return answer.stdout.strip() or "unknown"


def tools() -> dict[str, str]:
    """Returns the versions of the installed packages that a model depends on."""
    found = {}
    for package in _TOOLS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def framework() -> str:
    """Names Keras and its backend, such as "keras 3.15.1 (tensorflow 2.21.0)"."""
    backend = keras.backend.backend()
    installed = tools()
    backend_version = installed.get(backend) or installed.get(f"{backend}-cpu", "")
    return f"keras {keras.__version__} ({f'{backend} {backend_version}'.strip()})"
