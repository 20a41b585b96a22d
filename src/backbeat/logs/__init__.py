"""Runs and comparisons in the tools where people keep theirs: TensorBoard and MLflow, fed from events as they come."""

from .asked import Place as Place
from .asked import opened_places as opened_places
from .asked import places_of as places_of
from .log import FAILED as FAILED
from .log import FINISHED as FINISHED
from .log import Log as Log
from .log import LoggedRun as LoggedRun
from .log import Named as Named
from .log import named as named
from .run_log import RunLog as RunLog
from .run_log import Written as Written
from .run_log import flat as flat
