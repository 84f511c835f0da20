"""The optimisers. The trainer uses this wing; it imports only the recipe and the device module."""

from sharnn.optim.factory import make_optimizer
from sharnn.optim.lamb import Lamb
from sharnn.optim.muon import Muon

__all__ = ["Lamb", "Muon", "make_optimizer"]
