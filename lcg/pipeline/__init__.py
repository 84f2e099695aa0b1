"""Generator, prior and classifiers together: what generates and edits images.

    fitted -> drawing -> sessions -> pipeline

`fitted` holds the networks and turns images into latents and back, `drawing` samples, `sessions` edits, and `pipeline`
is all of it, with `load`. `given` reads images as users have them, `loading` checks what `load` is asked for.
"""

from lcg.pipeline.pipeline import CLASSIFIER, PRIOR, Pipeline, load

__all__ = ["CLASSIFIER", "PRIOR", "Pipeline", "load"]
