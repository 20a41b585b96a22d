"""Data from outside: where it comes from, what is checked, and which part is held out."""

from .dataset import Dataset as Dataset
from .dataset import from_arrays as from_arrays
from .held_out import Split as Split
from .held_out import split as split
from .host import foreseen as foreseen
from .host import on_device as on_device
from .host import reading_errors as reading_errors
from .load import load as load
from .packed import Packed as Packed
from .raw import Reading as Reading
from .sources import open_source as open_source
