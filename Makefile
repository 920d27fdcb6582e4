# Two commands do it all: make demo, make test. They need Python 3.11+ and make.
VENV = .venv
BIN = $(VENV)/bin
# Empty where the environment is somebody else's, and complete.
STAMPS = yes
PORT =
ARGS =

.PHONY: help demo test bench lint docs clean

help:
	@echo "make demo          the example site on a local Lakebase; Ctrl-C ends it"
	@echo "make demo ONCE=1   the same without staying: three rotations, then the end"
	@echo "make test          the whole test suite; ARGS='...' goes to pytest"
	@echo "make bench         the measured figures, as ratios"
	@echo "make lint          formatting, rules and types"
	@echo "make docs          the documentation, in docs/_build"
	@echo "make clean         remove the environment and what was built"
	@echo "PYTHON=... chooses the Python that the environment is made of."

demo: $(VENV)/local
	@$(BIN)/lakebase-local run --token-ttl 20 -- \
		$(BIN)/python -m example_project.demo $(if $(ONCE),--once) $(if $(PORT),--port $(PORT))

test: $(VENV)/test
	$(BIN)/python -m pytest $(ARGS)

bench: $(VENV)/local
	$(BIN)/python -m tests.bench $(ARGS)

lint: $(STAMPS:%=$(VENV)/lint)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(STAMPS:%=$(VENV)/docs)
	$(BIN)/python -m sphinx -W -n -b html docs docs/_build

clean:
	rm -rf $(VENV) docs/_build

# One environment; each stamp says which extras are in it.
$(VENV)/local $(VENV)/test $(VENV)/lint $(VENV)/docs: pyproject.toml | $(BIN)/python
	@echo "installing django_lakebase and its extras: local, $(@F)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[local,$(@F)]"
	@touch $@

$(BIN)/python:
	@python=$$(sh .ci/find-python $(PYTHON)) && echo "making $(VENV) with $$python" && \
		"$$python" -m venv $(VENV)
