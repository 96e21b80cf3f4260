# The two commands: `make report` and `make test`. `make help` lists the rest.
# Every path is relative, so that a folder with a space in its name works too.

PYTHON ?= python3
PROFILE ?= quick
ARGS ?=

VENV := .venv/bin/python
READY := .venv/.installed
HAS_BROWSER := command -v chromium || command -v chromium-browser || command -v google-chrome

.DEFAULT_GOAL := help
.PHONY: help setup report full test soak browser bench ladder peers distillation classical design hybrid lint lab app html publish clean

help:
	@echo 'make report    run the course: PROFILE=smoke|quick|full|gpu (now $(PROFILE)), ARGS="seed=1 data_root=..."'
	@echo 'make full      make every row of task 1 that runs/ does not hold, from the base weights, and compare with the committed tables; many hours, can be interrupted'
	@echo 'make test      run every test: ARGS goes to pytest'
	@echo 'make soak      up to 6,800 hostile inputs, 50 kills and a sweep; about half an hour'
	@echo 'make bench     measure speed, memory, growth, cost, the kinds of shift and the floor of fidelity; above two hours, with nothing else running'
	@echo 'make ladder    compare the sources of training pairs, from bicubic to the true camera; hours, can be interrupted'
	@echo 'make peers     score ready-made methods, released networks among them, on the same pairs; half an hour'
	@echo 'make distillation  score the committed students of a released network; ARGS="--small.weights other.safetensors" teaches anew: hours, can be interrupted'
	@echo 'make hybrid    score refinement networks and generators of pairs, in quality and cost; an hour, can be interrupted'
	@echo 'make classical score classical enlargement, on one image and on bursts; an hour, can be interrupted'
	@echo 'make design    compare the domain-invariant maps, from leakage to restoration; two hours, can be interrupted'
	@echo 'make sweep     run notebook 7 over a grid: ARGS="maps=mean_filter,median_filter strengths=0.5,1 seeds=0,1 profile=quick"'
	@echo 'make lab       open the notebooks in JupyterLab'
	@echo 'make app       show the widgets without code, in a browser'
	@echo 'make html      make the notebooks, as they are, a book that opens from disk: build/html/index.html'
	@echo 'make lint      run ruff'
	@echo 'make publish   put the run of PROFILE into notebooks/, figures/ and README.md'
	@echo 'make clean     remove runs/ and caches; .venv stays'

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Python 3.11 or newer is needed: make setup PYTHON=/path/to/python3.11' >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' || \
	  { echo 'Python lacks its venv module: install it (Debian: apt install python3-venv).' >&2; exit 1; }
	@echo 'Installing into .venv: about 3 GB to download, a few minutes.'
	@"$(PYTHON)" -m venv .venv
	@"$(VENV)" -m pip install --quiet --disable-pip-version-check --use-pep517 -r requirements.lock
	@"$(VENV)" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@"$(VENV)" -m sr_utils.cli prepare
	@touch $@

report: $(READY)
	@"$(VENV)" -m sr_utils.cli report --profile "$(PROFILE)" $(ARGS)

# Tables and weights go to runs/, where what is there already is not made again; of the committed ones only the last
# command's, reproduced.json, is written anew.
# Trained rows start from the committed base checkpoints, which `sr_utils.cli base` makes.
full: $(READY)
	@"$(VENV)" -m benchmarks.shifts --output runs/full/again/shifts.json
	@"$(VENV)" -m benchmarks.ladder --output runs/full/again/ladder.json
	@"$(VENV)" -m benchmarks.ladder --sources esrgan_deflow_sensor --output runs/full/again/ladder.json
	@"$(VENV)" -m pip install --quiet --disable-pip-version-check --no-build-isolation -e '.[peers]'
	@"$(VENV)" -m benchmarks.peers --output runs/full/again/peers.json
	@"$(VENV)" -m benchmarks.distillation --small.weights runs/full/again/distilled_esrgan_x2.safetensors \
	  --fine.weights runs/full/again/distilled_fine_esrgan_x2.safetensors --output runs/full/again/distillation.json
	@"$(VENV)" -m sr_utils.cli report --profile full
	@"$(VENV)" -m benchmarks.reproduced

# Files are shared out among processes, whole, because what a file's tests share is made once.
test: $(READY) browser
	@"$(VENV)" -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile $(ARGS)

# The tests that need a browser are skipped without one, and say so.
browser:
	@{ $(HAS_BROWSER); } >/dev/null || \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo 'Installing Chromium for the tests in a browser.'; \
	    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	      apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1 || true; \
	  fi
	@{ $(HAS_BROWSER); } >/dev/null || \
	  echo 'NO BROWSER: the tests in a browser will be skipped. Install Chromium (Debian: apt install chromium).' >&2

soak: $(READY)
	@"$(VENV)" -m pytest --hypothesis-profile soak --timeout 3600 tests/test_hostile_*.py $(ARGS)
	@"$(VENV)" -m pytest -m soak --timeout 7200 $(ARGS)

bench: $(READY)
	@"$(VENV)" -m benchmarks.oracle
	@"$(VENV)" -m benchmarks.shifts
	@"$(VENV)" -m benchmarks.cost
	@"$(VENV)" -m benchmarks.speed $(ARGS)
	@"$(VENV)" -m benchmarks.growth
	@"$(VENV)" -m benchmarks.switches

# Here and in `hybrid`, ARGS go to the last command alone. With another --data-root it refuses the flows of data/ and
# says how to train and give its own.
ladder: $(READY)
	@"$(VENV)" -m benchmarks.shifts
	@"$(VENV)" -m benchmarks.ladder $(ARGS)

design: $(READY)
	@"$(VENV)" -m benchmarks.h_design $(ARGS)

.PHONY: sweep
sweep: $(READY)
	@"$(VENV)" -m snakemake --snakefile Snakefile.sweep --cores all --rerun-incomplete --quiet rules $(if $(ARGS),--config $(ARGS))

peers: $(READY)
	@"$(VENV)" -m pip install --quiet --disable-pip-version-check --no-build-isolation -e '.[peers]'
	@"$(VENV)" -m benchmarks.peers $(ARGS)

# Weights that are there are scored and not trained again; the default ones are committed.
distillation: $(READY)
	@"$(VENV)" -m pip install --quiet --disable-pip-version-check --no-build-isolation -e '.[peers]'
	@"$(VENV)" -m benchmarks.distillation $(ARGS)

hybrid: $(READY)
	@"$(VENV)" -m benchmarks.shifts
	@"$(VENV)" -m benchmarks.pair_generators
	@"$(VENV)" -m benchmarks.hybrid $(ARGS)

classical: $(READY)
	@"$(VENV)" -m benchmarks.classical $(ARGS)

lint: $(READY)
	@"$(VENV)" -m ruff check .

lab: $(READY)
	@"$(VENV)" -m jupyterlab --notebook-dir=. notebooks

app: $(READY)
	@"$(VENV)" -m voila app/widgets.ipynb

html: $(READY)
	@"$(VENV)" -m sphinx -q -W --keep-going -d build/doctrees -c book . build/html
	@echo 'Open build/html/index.html in a browser.'

publish: $(READY)
	@"$(VENV)" -m sr_utils.cli publish --profile "$(PROFILE)"

clean:
	@rm -rf runs .snakemake .pytest_cache .ruff_cache sr_utils.egg-info build
