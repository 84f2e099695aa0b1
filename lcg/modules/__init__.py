"""The Lightning modules: prior, classifiers, guided editor (predict), and what trains the shipped networks."""
