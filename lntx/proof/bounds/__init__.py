"""What a formula is written in: numbers that carry a bound, and one call of an operator, with what it read and wrote.

Begin with `numbers`. Which operators there are is not known here.
"""
