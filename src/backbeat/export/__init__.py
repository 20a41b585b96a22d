"""Trained runs for other programs: safetensors, ONNX or StableHLO, each file run before it is said to be there."""

from .about import about as about
from .write import KINDS as KINDS
from .write import Exported as Exported
from .write import export as export
