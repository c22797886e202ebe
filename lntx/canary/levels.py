"""What a canary can be asked, as types alone: reading them costs no import of numpy or torch."""

from typing import Literal

Level = Literal[1, 2, 3]
"""How much is tried: a second's, half a minute's, or minutes' worth."""

Device = Literal["auto", "cpu", "cuda"]
"""Where to train; auto is the CPU."""
