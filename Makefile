# Each target does its own set-up; a second set-up is a no-op.
.PHONY: setup demo test test-slow bench lint format lock clean docs
PY := .venv/bin/python

setup:
	@bash scripts/setup.sh

demo: setup
	$(PY) demo_custom_strategy.py --out demo_out

# One thread of arithmetic per worker: more of them than cores wait for each other, busily.
test: setup
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# What would take `make test` beyond a quarter of an hour.
test-slow: setup
	OMP_NUM_THREADS=1 $(PY) -m pytest -m slow

# Every number of speed that the docs name; results lie beside the benchmarks.
RESULTS := benchmarks/results
bench: setup
	$(PY) -m benchmarks.start --out $(RESULTS)/start.json
	$(PY) -m benchmarks.step_bound --out $(RESULTS)/step_bound.json
	$(PY) -m benchmarks.orchestra_step --out $(RESULTS)/orchestra_step.json
	$(PY) -m benchmarks.colour_views --out $(RESULTS)/colour_views.json
	$(PY) -m benchmarks.per_example_clipping --out $(RESULTS)/per_example_clipping.json
	$(PY) -m benchmarks.global_clustering --out $(RESULTS)/global_clustering.json
	$(PY) -m benchmarks.users_per_second --out $(RESULTS)/virtual_users.json

lint: setup
	$(PY) -m ruff check .
	$(PY) -m black --check --quiet .
	$(PY) -m mypy

format: setup
	$(PY) -m ruff check --fix .
	$(PY) -m black --quiet .

# The docs site, in site/: an environment of its own, as its pins clash with SecretFlow's.
docs: setup
	@bash scripts/docs.sh

# The lock files: exact versions, no registry addresses. Needs uv.
lock:
	uv pip compile pyproject.toml --quiet --extra secretflow --extra plots --extra timm --extra dev --python-version 3.10 \
	  --python-platform x86_64-manylinux_2_28 --prerelease if-necessary-or-explicit \
	  --constraint constraints.txt --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links --output-file requirements.lock
	uv pip compile docs/requirements.in --quiet --python-version 3.10 --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links --output-file docs/requirements.txt

clean:
	rm -rf .venv .venv-docs .tools demo_out site
