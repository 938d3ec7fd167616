"""Scientific functions written as their users write them, with nothing of gpujac in them."""

from tests.zoo import dynamics, mechanics, statistics
from tests.zoo.entry import Entry

ZOO = [*dynamics.ENTRIES, *statistics.ENTRIES, *mechanics.ENTRIES]

__all__ = ["ZOO", "Entry"]
