"""What happens inside an update, example by example: lessons for a page, with the library's own numbers."""

from .lesson import Choices as Choices
from .lesson import Lesson as Lesson
from .problems import PROBLEMS as PROBLEMS
from .sentences import told as told
