"""Several cadences on the same model, data and machine: timed, tuned, measured, and the answer in words."""

from .journal import Progress as Progress
from .protocol import compare as compare
from .result import CadenceResult as CadenceResult
from .result import Comparison as Comparison
