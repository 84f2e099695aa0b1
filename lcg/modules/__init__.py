"""The Lightning modules: the prior, the classifiers, the guided editor (predict), and the two that make what ships with the
package, the embedded generator and the judge."""
