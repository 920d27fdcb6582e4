# Two commands do it all: make demo, make test. They need Python 3.11+ and make.
VENV = .venv
BIN = $(VENV)/bin
# Empty where the environment is somebody else's, and complete.
STAMPS = yes
# Taken from the environment too, as in: PORT=8000 make demo
PORT ?=
ONCE ?=
ARGS ?=
SECONDS = 60
SEED =
# Each has a local Lakebase of its own; WORKERS= is one process for all.
WORKERS = -n auto --maxprocesses 4 --dist loadfile
TTL = $(if $(ONCE),6,20)

# Django's own tests: a release, POOL=1, and labels; "database" is its heavy part.
DJANGO = 5.2
POOL =
LABELS =

.PHONY: help demo test django-suite packages packages-newest packages-lts chaos soak fleet
.PHONY: bench figures lint docs clean always

help:
	@echo "make demo          the example site on a local Lakebase; Ctrl-C ends it"
	@echo "                   PORT=8000 chooses its port; tokens live for 20 seconds"
	@echo "make demo ONCE=1   the same without staying: three rotations, then the end;"
	@echo "                   tokens live for 6 seconds"
	@echo "make test          the whole test suite; ARGS='...' goes to pytest"
	@echo "make django-suite  Django's own tests on both backends, and the difference;"
	@echo "                   DJANGO=6.1 POOL=1 LABELS='database' choose what is run"
	@echo "make chaos         every fault while rows are written, then the books"
	@echo "                   SECONDS=600 SEED=7 for a long run, or one again"
	@echo "make soak          an hour of short-lived credentials; SECONDS=3600"
	@echo "make fleet         200 processes that start at once, and 10,000 simulated"
	@echo "make packages      journeys with other packages, on the newest Django"
	@echo "                   and on the LTS; ARGS='wagtail procrastinate' chooses"
	@echo "make bench         the measured figures, in docs/benchmarks.md too (ten minutes);"
	@echo "                   ARGS='--only NAME' measures one part and writes nothing"
	@echo "make lint          formatting, rules, types and import layers"
	@echo "make docs          the documentation, in docs/_build"
	@echo "make clean         remove the environment and what was built"
	@echo "PYTHON=... chooses the Python that the environment is made of."

demo: $(VENV)/local
	@$(BIN)/lakebase-local run --token-ttl $(TTL) -- \
		$(BIN)/python -m example_project.demo $(if $(ONCE),--once) $(if $(PORT),--port $(PORT))

test: $(VENV)/local,test
	$(BIN)/python -m pytest $(WORKERS) $(ARGS)

django-suite: $(VENV)/local
	$(BIN)/python -m tools.django_suite --django $(DJANGO) $(if $(POOL),--pool) \
		$(ARGS) $(LABELS)

# Half of the time without a pool, half with one.
chaos: $(VENV)/local
	$(BIN)/python -m tools.chaos --seconds $(SECONDS) --share 2 $(SEED:%=--seed %)
	$(BIN)/python -m tools.chaos --seconds $(SECONDS) --share 2 $(SEED:%=--seed %) --pool

soak: SECONDS = 3600
soak: $(VENV)/local
	$(BIN)/python -m tools.chaos.soak --seconds $(SECONDS)

fleet: $(VENV)/local
	$(BIN)/python -m tools.chaos.thundering_herd
	$(BIN)/python -m tools.chaos.simulation

packages: packages-newest packages-lts

# Tokens end within each journey.
packages-newest packages-lts:
	@$(MAKE) --no-print-directory VENV=.venv-$@ .venv-$@/local,test,$@
	@.venv-$@/bin/lakebase-local run --token-ttl 5 -- \
		.venv-$@/bin/python -m tools.packages $(ARGS)

# An environment of its own: what is measured beside us brings forty packages.
bench:
	@$(MAKE) --no-print-directory VENV=$(VENV)-bench figures

figures: $(VENV)/local,bench
	$(BIN)/python -m benchmarks --write $(ARGS)

# The tests are typed too, and import what they need.
lint: $(STAMPS:%=$(VENV)/local,test,lint)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: $(STAMPS:%=$(VENV)/local,docs)
	$(BIN)/python -m sphinx -W -n -b html docs docs/_build

clean:
	rm -rf $(VENV) $(VENV)-bench .venv-packages-* docs/_build

# One environment; each stamp is named by the extras that are in it.
$(VENV)/local $(VENV)/local,test $(VENV)/local,test,lint $(VENV)/local,docs \
		$(VENV)/local,bench \
		$(VENV)/local,test,packages-newest $(VENV)/local,test,packages-lts: \
		pyproject.toml $(VENV)/pyvenv.cfg
	@echo "installing django_lakebase[$(@F)]"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[$(@F)]"
	@touch $@

# Looked at each time: an environment whose Python has gone, or that was left half
# made, is made anew, and is newer than every stamp.
$(VENV)/pyvenv.cfg: always
	@$(BIN)/python -c "import pip" 2>/dev/null || { \
		python=$$(sh .ci/find-python $(PYTHON)) && echo "making $(VENV) with $$python" && \
		"$$python" -m venv --clear $(VENV); }

always:
