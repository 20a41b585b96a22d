"""Networks as pure functions: dense, convolutional, an (init, apply) pair or another framework's; and θ as a vector."""

from .cnn import ConvolutionalNetwork as ConvolutionalNetwork
from .cnn import cnn as cnn
from .dense import DenseNetwork as DenseNetwork
from .dense import linear as linear
from .dense import mlp as mlp
from .given import model_for as model_for
from .mixing import check_examples_apart as check_examples_apart
from .model import Functions as Functions
from .model import Model as Model
from .model import RandomModel as RandomModel
from .model import forward as forward
from .refusal import explain as explain
from .text import parse_model as parse_model
from .theta import from_theta as from_theta
from .theta import n_parameters as n_parameters
from .theta import theta as theta

BUILT_IN = (DenseNetwork, ConvolutionalNetwork)  # nothing of the user's own: known to keep examples apart
