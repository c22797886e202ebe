"""Types of canary options, in a separate module: importing it loads neither numpy nor torch."""

from typing import Literal

Level = Literal[1, 2, 3]
"""Amount of testing: about a second, half a minute, or minutes."""

Device = Literal["auto", "cpu", "cuda"]
"""Where to train; auto is the CPU."""
