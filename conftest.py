"""Settings for every test and every example in a docstring or a document, made before anything is imported."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")  # no test opens a window
os.environ.setdefault("KERAS_BACKEND", "jax")  # chosen when Keras is imported, whichever test is the first to do so

import atexit
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import beartype
import hypothesis
import jax
import jaxtyping

# a shell that starts the tests in the background has them ignore Ctrl-C, and the processes that they start as well
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

if "BACKBEAT_CACHE" not in os.environ:  # one for all tests and the processes that they start, and not the user's own
    os.environ["BACKBEAT_CACHE"] = tempfile.mkdtemp(prefix="backbeat-cache-")
    atexit.register(shutil.rmtree, os.environ["BACKBEAT_CACHE"], ignore_errors=True)

jax.config.update("jax_num_cpu_devices", 2)  # so that work over several devices is tested on any machine
jax.config.update("jax_numpy_dtype_promotion", "strict")  # mixed dtypes are a mistake until someone says otherwise

# Shapes and dtypes in annotations are checked at every call in tests, and only there: in the modules that name shapes,
# because the checks of all others, whose types pyright looks at, would take a fifth of the time.
# An int where a float is due is no mistake (PEP 484); the hook takes its checker by name, so it gets one.
checker = ModuleType("backbeat_checker")
checker.check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))  # pyright: ignore[reportAttributeAccessIssue]
sys.modules[checker.__name__] = checker
SOURCE = Path(__file__).parent / "src"
SHAPED = [
    ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    for path in SOURCE.rglob("*.py")
    if ".types import" in path.read_text(encoding="utf-8")
]
jaxtyping.install_import_hook(SHAPED, "backbeat_checker.check")

# No deadline: the first example of a property compiles, the next ones do not.
hypothesis.settings.register_profile("backbeat", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("backbeat")
