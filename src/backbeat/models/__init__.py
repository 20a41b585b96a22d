"""Networks as pure functions: dense, convolutional, or any (init, apply) pair; and their parameters as a vector θ."""

from .cnn import cnn as cnn
from .dense import linear as linear
from .dense import mlp as mlp
from .given import model_for as model_for
from .model import Functions as Functions
from .model import Model as Model
from .model import RandomModel as RandomModel
from .model import forward as forward
from .text import parse_model as parse_model
from .theta import from_theta as from_theta
from .theta import n_parameters as n_parameters
from .theta import theta as theta
