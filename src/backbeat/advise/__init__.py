"""Advice: after how many examples to update, with which learning rate, for how long, and how sure that is."""

from .protocol import advise as advise
from .result import Advice as Advice
