"""The conformance suite: worlds in which every probability is known, and checks of lcg against them (`lcg verify`)."""
