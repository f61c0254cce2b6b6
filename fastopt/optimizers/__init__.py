"""The optimizers, one file each: the rule, its scalars, the class, its function."""

from .adabelief import *
from .adadelta import *
from .adagrad import *
from .adam import *
from .adamax import *
from .adan import *
from .ademamix import *
from .adopt import *
from .gd import *
from .lamb import *
from .lars import *
from .lion import *
from .momentum import *
from .nadam import *
from .radam import *
from .rmsprop import *
from .schedulefree import *
from .signsgd import *
from .yogi import *
