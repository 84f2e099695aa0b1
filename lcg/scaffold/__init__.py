"""`lcg new`: a folder with an adapter for a generator, its configs and its tests, to begin with."""
