"""What one call of an operator should have returned, and whether it did.

Begin with `rows`, which judges a call by its formula or certificate; `decomposition` and `graph` take a call without a
formula apart, `whole` looks at all elements, `views` at where a view lies. Whole training steps are above, in `proof`.
"""
