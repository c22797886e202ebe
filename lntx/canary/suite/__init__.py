"""What both suites share: `suite` says what a suite is; options, results, faults, and what earlier canaries kept.

Begin with `suite`. No case is known here.
"""
