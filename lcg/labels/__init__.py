"""Labels of images from a function or a model: scores, rules that make labels of them, and whether these are right."""
