"""Installs PyTorch into the running environment for the tests of its adapter, unless that is a download of gigabytes.

PyTorch stays out of the dependencies and the locks: a user brings the build that fits their machine. On many platforms
the registry's build brings several GB of CUDA libraries along, of no use to the tests. So pip is asked first what it
would install; where CUDA libraries are among it, the reason is printed and nothing is installed, unless --large is
given. The reason is also left beside the environment, where the skipped tests find it (tests/conftest.py).

    python scripts/install_torch.py [--large]
"""

import importlib.metadata
import json
import subprocess
import sys
import tempfile
from pathlib import Path

REQUIREMENT = "torch==2.13.0"
REASON = Path(sys.prefix) / "no-torch.txt"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


def planned() -> list[str]:
    """Returns the names of the packages that installing PyTorch would bring in, by pip's own dry run."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        subprocess.run([*PIP, "install", "--dry-run", "--report", report, REQUIREMENT], check=True)
        return [item["metadata"]["name"].lower() for item in json.loads(report.read_text())["install"]]


def reason_against(large: bool) -> str | None:
    """Returns why PyTorch is not to be installed here, or None where it is."""
    try:
        names = planned()
    except subprocess.CalledProcessError:
        return f"pip finds no {REQUIREMENT} for Python {sys.version_info[0]}.{sys.version_info[1]} here"
    cuda = sorted(name for name in names if name.startswith(("nvidia-", "cuda-", "triton")))
    if cuda and not large:
        return (
            f"the build of {REQUIREMENT} to be had here brings {len(cuda)} CUDA packages of several GB "
            f"({cuda[0]}, ...); `make torch LARGE=yes` installs it all the same"
        )
    return None


def main() -> None:
    """Installs PyTorch, or prints why not and ends well."""
    try:
        print(f"torch: {importlib.metadata.version('torch')} is installed")
        REASON.unlink(missing_ok=True)
        return
    except importlib.metadata.PackageNotFoundError:
        pass
    reason = reason_against(large="--large" in sys.argv[1:])
    if reason is not None:
        REASON.write_text(reason + "\n")
        print(f"torch: not installed: {reason}")
        return
    subprocess.run([*PIP, "install", REQUIREMENT], check=True)
    REASON.unlink(missing_ok=True)
    print(f"torch: {importlib.metadata.version('torch')} installed")


if __name__ == "__main__":
    main()
