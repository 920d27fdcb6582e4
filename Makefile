# Start with make demo or make test; both need only Python 3.11+ and make.
VENV = .venv
BIN = $(VENV)/bin
# Leave empty to use an existing, complete environment.
STAMPS = yes
# May also be set in the environment: PORT=8000 make demo
PORT ?=
ONCE ?=
ARGS ?=
SECONDS = 60
SEED =
# Each test process starts a local Lakebase; WORKERS= runs all tests in one process.
WORKERS = -n auto --maxprocesses 4 --dist loadfile
TTL = $(if $(ONCE),6,20)

# For make django-suite: a release of Django, 1 to use a pool, and labels. The label
# "database" selects the tests that depend most on the database.
DJANGO = 5.2
POOL =
LABELS =

.PHONY: help demo test django-suite packages packages-newest packages-lts
.PHONY: chaos soak thundering-herd bench run-benchmarks lint docs clean always

help:
	@echo "make demo             run the example site on a local Lakebase until Ctrl-C,"
	@echo "                      with tokens that live for 20 seconds; PORT=8000 sets the port"
	@echo "make demo ONCE=1      exit after three rotations of tokens that live for 6 seconds"
	@echo "make test             run all tests; ARGS='...' is passed to pytest"
	@echo "make django-suite     run Django's test suite on this engine and on Django's own"
	@echo "                      backend, and compare the results; DJANGO=6.1, POOL=1 and"
	@echo "                      LABELS='database' select the release, a pool and the tests"
	@echo "make chaos            inject every fault while rows are written, and check the"
	@echo "                      rows; SECONDS=600 SEED=7 set the duration and the schedule"
	@echo "make soak             write for an hour with short-lived credentials, and check"
	@echo "                      for leaks; SECONDS=3600"
	@echo "make thundering-herd  start 200 processes in the same second, and simulate 10,000"
	@echo "make packages         test other Django packages on the newest Django and on the"
	@echo "                      LTS; ARGS='wagtail procrastinate' selects packages"
	@echo "make bench            run the benchmarks and write docs/benchmarks.md (ten"
	@echo "                      minutes); ARGS='--only NAME' runs one and writes nothing"
	@echo "make lint             check formatting, lint rules, types and import layers"
	@echo "make docs             build the documentation in docs/_build"
	@echo "make clean            remove environments and build results"
	@echo "PYTHON=... selects the Python of new environments."

demo: $(VENV)/local
	@$(BIN)/lakebase-local run --token-ttl $(TTL) -- \
		$(BIN)/python -m example_project.demo $(if $(ONCE),--once) $(if $(PORT),--port $(PORT))

test: $(VENV)/local,test
	$(BIN)/python -m pytest $(WORKERS) $(ARGS)

django-suite: $(VENV)/local
	$(BIN)/python -m tools.django_suite --django $(DJANGO) $(if $(POOL),--pool) \
		$(ARGS) $(LABELS)

# Half of SECONDS without a pool, half with one.
chaos: $(VENV)/local
	$(BIN)/python -m tools.chaos --seconds $(SECONDS) --share 2 $(SEED:%=--seed %)
	$(BIN)/python -m tools.chaos --seconds $(SECONDS) --share 2 $(SEED:%=--seed %) --pool

soak: SECONDS = 3600
soak: $(VENV)/local
	$(BIN)/python -m tools.chaos.soak --seconds $(SECONDS)

thundering-herd: $(VENV)/local
	$(BIN)/python -m tools.chaos.thundering_herd
	$(BIN)/python -m tools.chaos.simulation

packages: packages-newest packages-lts

# Tokens expire during each test, because they live for only 5 seconds.
packages-newest packages-lts:
	@$(MAKE) --no-print-directory VENV=.venv-$@ .venv-$@/local,test,$@
	@.venv-$@/bin/lakebase-local run --token-ttl 5 -- \
		.venv-$@/bin/python -m tools.packages $(ARGS)

# In a separate environment, because the other pools have forty dependencies.
bench:
	@$(MAKE) --no-print-directory VENV=$(VENV)-bench run-benchmarks

run-benchmarks: $(VENV)/local,bench
	$(BIN)/python -m benchmarks --write $(ARGS)

# Includes the test dependencies, because mypy also checks the tests.
lint: $(STAMPS:%=$(VENV)/local,test,lint)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: $(STAMPS:%=$(VENV)/local,docs)
	$(BIN)/python -m sphinx -W -n -b html docs docs/_build

clean:
	rm -rf $(VENV) $(VENV)-bench .venv-packages-* docs/_build

# One environment with a stamp file for each combination of installed extras.
$(VENV)/local $(VENV)/local,test $(VENV)/local,test,lint $(VENV)/local,docs \
		$(VENV)/local,bench \
		$(VENV)/local,test,packages-newest $(VENV)/local,test,packages-lts: \
		pyproject.toml $(VENV)/pyvenv.cfg
	@echo "installing django_lakebase[$(@F)]"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[$(@F)]"
	@touch $@

# Runs each time: creates an environment again if it is incomplete or its Python was
# removed. The environment is then newer than every stamp, so make installs its extras
# again.
$(VENV)/pyvenv.cfg: always
	@$(BIN)/python -c "import pip" 2>/dev/null || { \
		python=$$(sh .ci/find-python $(PYTHON)) && echo "creating $(VENV) with $$python" && \
		"$$python" -m venv --clear $(VENV); }

always:
