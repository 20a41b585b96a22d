"""Is the update really the mean of per-example gradients, for this model and loss? Measured, and the cause named."""

from .proof import verify as verify
from .result import Check as Check
from .result import Comparison as Comparison
from .result import Finding as Finding
from .result import LayerError as LayerError
from .result import Verification as Verification
