"""Optimisers of a training run. Imports only core modules below the trainer."""

from sharnn.optim.factory import make_optimizer, state_shapes
from sharnn.optim.lamb import Lamb
from sharnn.optim.muon import Muon

__all__ = ["Lamb", "Muon", "make_optimizer", "state_shapes"]
