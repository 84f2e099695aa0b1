"""Exported models: a prior, its classifiers and all that belongs to them as one folder that may be given to others.

    FOLDER/model.json               what it is: schema, constructors' arguments, calibration, provenance, checksums
    FOLDER/prior.safetensors        weights of the prior, and the statistics of its latents
    FOLDER/classifier.safetensors   weights of the classifiers, and label rows of their store
    FOLDER/README.md                the same for people: a model card
    FOLDER/gallery                  held-out latents with labels, if it has any: a latent store

`lcg export` writes one, `lcg.load(NAME_OR_FOLDER)` and every command's `--model` read it. Nothing in it is code, and
nothing in it is believed: sizes are compared with the files before memory is taken, and bytes with their SHA-256. Names
stand for folders in this package and in `$LCG_MODELS` (`lcg.models.names`).
"""
