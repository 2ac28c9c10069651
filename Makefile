# Makefile - the front door.
#
#   make train     install what is missing, build, prepare the King James text, train a small GPT
#   make test      install what is missing, build, run the short suite: eight minutes at most on two cores
#   make test-all  what is longer, too: tests labelled long, both sanitizers
#   make build     the program: build/murmur
#   make asan      the short suite under the address and undefined-behaviour sanitizers
#   make tsan      the tests of ranks that are threads under the thread sanitizer
#   make gpu-check on a machine with an NVIDIA GPU: build, test and time the CUDA engine there, and
#                  write docs/results/; needs no network. gpu-pack gathers the packages it needs
#   make decentralised    race DeMuon and its rivals on graphs of eight nodes: half an hour on two
#                  cores; with FULL=1 a larger model and more seeds: many hours
#   make docs      write the generated tables of docs/lists.md anew
#   make clean     remove build folders; data/ and runs/ stay
#
# Your own text:     make train TEXT=my.txt
# Several documents: make train TEXT="a.txt b.txt" NAME=mine
# Other settings:    make train RUN=runs/mine FLAGS="--preset baby --steps 500"      (murmur train --help)

TEXT   ?=
NAME    = $(if $(TEXT),$(subst $() ,-,$(basename $(notdir $(TEXT)))),kjv)
DATA    = data/$(NAME)
RUN    ?= runs/$(NAME)
FLAGS  ?= --arch modern --steps 3600 --auxiliary.lr 0.005 --min-lr 0.02 --eval-every 400
PROMPT ?= In the beginning

PACKAGES = g++ cmake ninja-build libfmt-dev nlohmann-json3-dev libcli11-dev libtomlplusplus-dev doctest-dev \
           libstb-dev fonts-dejavu-core bible-kjv bible-kjv-text patch
# Besides, for the tests: MPI, and hosts made of network namespaces.
TEST_PACKAGES = libopenmpi-dev openmpi-bin iproute2

.PHONY: decentralised train test test-all build asan tsan gpu-check gpu-pack setup docs clean
.DELETE_ON_ERROR:

train: build $(DATA)/data.json
	build/murmur train --data $(DATA) --out $(RUN) --resume $(FLAGS)
	@echo
	build/murmur sample $(RUN) --prompt "$(PROMPT)" --tokens 500 --temperature 0.6

# DeMuon's experiment (docs/decentralised.md): every method tuned over as many rates, with one warm-up for all
# but those whose rules have none.
METHODS = demuon:lr=0.02|0.04|0.08|0.16, denormuon:lr=0.01|0.02|0.04|0.08, dadamw:lr=0.002|0.004|0.008|0.016, \
          gt_nsgdm:lr=0.25|0.5|1|2, dsgt:warmup=0;lr=0.0625|0.125|0.25|0.5, dsgd:lr=0.25|0.5|1|2, dsgd_clip:lr=1|2|4|8, \
          sen:warmup=0;lr=2|4|8|16, qg_dsgdm:lr=0.125|0.25|0.5|1, qg_dsgdm:strategy.momentum=0.5;lr=0.25|0.5|1|2, \
          demuon:strategy=all_reduce;momentum=0.8;auxiliary.momentum=0.8;lr=0.02|0.04|0.08|0.16
SMALL = --seeds 3 --n-layer 2 --n-head 2 --n-embd 32 --block-size 32 --batch-size 16 --steps 400 --warmup 40
LARGE = --seeds 5 --preset nano --batch-size 64 --steps 4000 --warmup 400
decentralised: build $(DATA)/data.json
	build/murmur compare --data $(DATA) --out runs/decentralised$(if $(FULL),-full) --nodes 8 $(if $(FULL),$(LARGE),$(SMALL)) \
	    --eval-batches 16 --optimizers "$(METHODS)" \
	    --over "partition=iid,by-document;topology=ring,exponential,complete"

# Ranks that wait must not spin on cores that others need.
CTEST = OMP_WAIT_POLICY=passive ctest --output-on-failure -j $$(nproc)

test asan tsan: PACKAGES += $(TEST_PACKAGES)
test: build
	cmake --build build
	$(CTEST) --test-dir build -LE long

test-all: test asan tsan
	$(CTEST) --test-dir build -L long

build: setup
	@cmake --preset cpu > build.log 2>&1 || { cat build.log; rm build.log; exit 1; }
	@grep '^-- Murmur' -A 2 build.log; rm build.log
	cmake --build build --target murmur

asan: setup
	cmake --preset cpu-asan
	cmake --build build-asan
	$(CTEST) --test-dir build-asan -LE long -E 'house|mpi'  # no kernels; MPI leaks

# One thread per rank: the sanitizer does not know OpenMP's barriers.
TSAN_CASES ?= *
tsan: setup
	cmake --preset cpu-tsan
	cmake --build build-tsan --target test_dist
	OMP_NUM_THREADS=1 build-tsan/test_dist -tc="$(TSAN_CASES)"

# Settings: make gpu-check CHECK="--budget 300"      (tests/gpu/check.py --help). No GPU: no failure.
gpu-check:
	@python3 tests/gpu/check.py $(CHECK) || { code=$$?; [ $$code = 77 ] || exit $$code; }

gpu-pack: setup
	@tests/gpu/pack.sh

docs: build
	cmake --build build --target test_house
	MURMUR_WRITE_DOCS=1 build/test_house -tc="docs/lists.md*"

# Installs only what is missing; asks for nothing where all is there.
setup:
	@missing=$$(for p in $(PACKAGES); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
	  if ! command -v apt-get > /dev/null; then echo "make: install these with your package manager: $$missing"; exit 1; fi; \
	  if [ "$$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi; \
	  echo "installing:" $$missing; \
	  $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing > /dev/null; \
	fi

# The King James Bible, a file a book, a verse a line, without the "Ge1:1 " in front: 01-Ge.txt,
# .., 66-Rev.txt. Moved to its place when all books are there.
data/kjv-books:
	@rm -rf $@.part && mkdir -p $@.part
	@bible -f gen1:1-rev22:21 2> /dev/null | awk -v folder=$@.part ' \
	  { book = $$1; sub(/[0-9]+:[0-9]+$$/, "", book); sub(/^[^ ]* /, "") } \
	  book != last { close(file); last = book; file = sprintf("%s/%02d-%s.txt", folder, ++count, book) } \
	  { print > file } \
	  END { if (count != 66) { print "make: bible printed " count + 0 " books, not 66" > "/dev/stderr"; exit 1 } }'
	@mv $@.part $@

$(DATA)/data.json: $(or $(TEXT),data/kjv-books) | build
	build/murmur data prepare $(if $(TEXT),$^,data/kjv-books/*.txt) --out $(DATA)

clean:
	rm -rf build build-asan build-tsan build-clang build-cuda build-gpu-packages
