"""How fast latents are read from disk and cache, and how much memory that takes, beside other ways of storing them.

A store of vectors is read in random batches, as training reads it, and from end to end. What decides is whether pages
are in the system's cache (warm) or must come from the disk (cold), so files are read, or the system asked to forget
them, before they are measured. Each measurement has a process of its own, because maps of files stay in memory, and
candidates take turns. A large store is then built, finished and gone through once.

    python -m lcg.benchmarks.storage --out runs/storage [--quick]
"""
