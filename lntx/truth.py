"""True weights drawn from a seed. Knows nothing of rows."""


def draw_weights(num_features: int, seed: int) -> tuple[float, ...]:
    """Draw true weights, uniform in [-10, 10), from a stream that no block of rows uses.

    Returns: num_features weights; the first k are the same for every num_features >= k.
    """
    import numpy as np

    # Rows come from spawned streams, which have a spawn key: this stream is never theirs.
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    return tuple(generator.uniform(-10, 10, num_features).tolist())
