# make demo   the main job, on what ships with the project
# make test   what CI runs
# make check  the same and the long part
# make distortion  our corruptions beside imagecorruptions-imaug, which it puts into .venv/imagecorruptions
# Each sets up .venv by itself; only Python 3.11 or later is needed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check lint distortion
.DELETE_ON_ERROR:

demo: .venv/ready
	$(BIN)/xaitools demo --out demo

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not long" --ignore=tests/browser/test_walk.py

check: lint .venv/ray
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# of no use to most, and large
.venv/ray: .venv/ready
	.venv/tools/bin/uv pip install -q --python $(BIN)/python -c constraints.txt -e ".[test,ray]"
	touch $@

distortion: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/distortion.py

# uv installs in seconds what takes plain pip minutes; it comes from the registry like everything else
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'xaitools needs Python 3.11 or later')"
	test -x .venv/tools/bin/uv || ($(PYTHON) -m venv .venv/tools && .venv/tools/bin/python -m pip install -q uv)
	test -x $(BIN)/python || .venv/tools/bin/uv venv -q --allow-existing --python $(PYTHON) .venv
	.venv/tools/bin/uv pip install -q --python $(BIN)/python -c constraints.txt -e ".[test]"
	$(BIN)/python -c "import torchvision.ops, torch; torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)"
	touch $@
