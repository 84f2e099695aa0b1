"""Generators: frozen maps between raw latents and images. `base` has the contract; each other module has one generator.

Nothing is imported here, so that asking for one generator does not pay for the dependencies of another.
"""
