"""StyleGAN2 and StyleGAN3, written from the papers, with weights from the official files.

generator.py    the generators, in W and W+: start here
stylegan2.py    synthesis of StyleGAN2
stylegan3.py    synthesis of StyleGAN3-t and -r
layers.py       what both are made of
resampling.py   filters, and changes of rate
files.py        their weights as safetensors
convert.py      `lcg convert-stylegan`: an official pickle becomes safetensors
official.py     what the official networks call what ours call otherwise
isolation.py    runs the reader of pickles in a process with bounds
unpickle.py     that reader, which calls nothing that a pickle names
"""

from lcg.generators.stylegan.generator import StyleGAN2, StyleGAN3

__all__ = ["StyleGAN2", "StyleGAN3"]
