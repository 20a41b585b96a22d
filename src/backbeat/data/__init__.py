"""Data from outside: where it comes from, what is checked, and which part is held out."""

from .dataset import Dataset as Dataset
from .dataset import from_arrays as from_arrays
from .held_out import Split as Split
from .held_out import split as split
from .load import load as load
from .raw import Reading as Reading
from .readers.sources import open_source as open_source
from .streaming.host import foreseen as foreseen
from .streaming.host import on_device as on_device
from .streaming.host import reading_errors as reading_errors
from .streaming.packed import Packed as Packed
