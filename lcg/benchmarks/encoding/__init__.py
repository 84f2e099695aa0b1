"""How fast images become latents, beside the encoder alone on tensors that are ready, and how much memory that takes.

The job (`lcg.data.encode`) reads, converts, encodes, writes, hashes and syncs; what it reaches of the encoder alone
says what all this costs. Images come from memory and from files, PNG and JPEG; the encoder is the embedded one, which
is tiny, and a convolutional one with random weights, which is as slow as small real ones. Each measurement has a
process of its own, candidates take turns, and all use all cores.

    python -m lcg.benchmarks.encoding --out runs/encoding [--quick]
"""
