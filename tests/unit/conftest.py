"""How far a counterexample is looked for; without deadlines, for machines differ."""

from hypothesis import settings

settings.register_profile("suite", max_examples=80, deadline=None)
settings.load_profile("suite")
