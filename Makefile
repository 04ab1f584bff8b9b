# libminitc. `make` builds the library and needs no package but the compiler; README.md says the rest.

CXX      ?= g++
# PLATFORM=aarch64 builds for that processor, PLATFORM=musl for that libc: build/PLATFORM/libminitc.so.
PLATFORM ?=
BUILD    ?= build$(addprefix /,$(PLATFORM))
LIB      ?= $(if $(PLATFORM),$(BUILD)/)libminitc.so
PREFIX   ?= /usr/local
DESTDIR  ?=
CMD      ?=
# make test ONLY=pattern runs some of the tests.
ONLY     ?=

# make V=1 shows the commands.
Q        := $(if $(V),,@)

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:

# --- Other platforms than this machine's -----------------------------------------------------------

ifeq ($(PLATFORM),aarch64)

CXX           := aarch64-linux-gnu-g++
LINK          := aarch64-linux-gnu-gcc
PROGRAM_CC    := $(LINK)
PROGRAM_CXX   := $(CXX)
RUNNER        := qemu-aarch64 -L /usr/aarch64-linux-gnu
UNIT_CXX      := $(CXX)
VARIANTS      := plain
CATCH_MAIN    := $(BUILD)/catch_main.o
TEST_PACKAGES := g++-aarch64-linux-gnu qemu-user catch2 python3-pytest

else ifeq ($(PLATFORM),musl)

# Debian's musl comes with a compiler for C. The library needs headers alone of C++: libstdc++'s, with
# musl's where glibc's would follow. They are configured for glibc, hence the macros, for what they
# name and musl has not; nothing that is called. The kernel's headers lie beside glibc's.
LINK          := musl-gcc
PROGRAM_CC    := musl-gcc
MULTIARCH     := $(shell gcc -print-multiarch)
KERNEL        := $(BUILD)/kernel
CXX_INCLUDE   := $(shell $(CXX) -E -v -x c++ /dev/null 2>&1 | grep '^ /.*/c++/')
LIBC_FLAGS    := -nostdinc $(addprefix -isystem ,$(CXX_INCLUDE) \
                   /usr/include/$(MULTIARCH:%gnu=%musl) $(shell gcc -print-file-name=include) $(KERNEL)) \
                 '-D__GLIBC_PREREQ(major,minor)=0' -D__locale_t=locale_t \
                 '-Dpthread_cond_clockwait(c,m,k,t)=pthread_cond_timedwait(c,m,t)'
PROGRAM_LIBC  := -isystem $(KERNEL) -Wl,-z,dynamic-undefined-weak
# C++ programs would need libstdc++ for musl; dlmopen, dlvsym, RTLD_DEEPBIND, LD_AUDIT and ucontext
# are glibc's.
NOT_BUILT     := %.cc test/misuse/other_namespace.c test/misuse/deepbind_plugin.c \
                 $(patsubst %,test/preload/%.c,deepbind lib_audit lib_deepbind lib_early_opener \
                   lib_opener lib_wrap_dlopen lib_wrap_dlsym stack_use)
VARIANTS      :=
TEST_PACKAGES := musl-tools python3-pytest

else ifneq ($(PLATFORM),)
$(error PLATFORM is aarch64 or musl, not $(PLATFORM))
endif

# --- The library ---------------------------------------------------------------------------------

CXXFLAGS ?= -O2 -g
COMMON   := -std=c++20 -I. -Wall -Wextra -Werror -MMD -MP -pthread -fvisibility=hidden $(LIBC_FLAGS)
LIB_FLAGS := $(COMMON) -fno-exceptions -fno-rtti -fno-threadsafe-statics -fPIC \
             -ftls-model=initial-exec -fno-plt -fsemantic-interposition -ffunction-sections \
             -fdata-sections -foptimize-sibling-calls -fno-tree-slp-vectorize
# Beside each object, for scripts/check_stack.py: who calls whom, and the frames. clang has no such.
LIB_FLAGS += $(if $(findstring clang,$(CXX)),,-fcallgraph-info=su)
# The C++ driver would add libstdc++ and libm; the C driver of the same compiler does not.
LINK     ?= $(if $(findstring clang,$(CXX)),clang,gcc)
LDFLAGS  ?=
LINK_FLAGS := -shared -static-libgcc -pthread -Wl,-soname,libminitc.so \
              -Wl,--version-script=preload/exports.map -Wl,-T,preload/layout.ld \
              -Wl,-z,now,-z,relro,-z,nodelete,-z,defs,-z,noseparate-code -Wl,--gc-sections -Wl,--as-needed

CORE     := $(wildcard core/*.cc)
LIB_BUILD ?= $(BUILD)/lib
LIB_OBJ  := $(patsubst %.cc,$(LIB_BUILD)/%.o,$(CORE) $(wildcard preload/*.cc))

.PHONY: all
all: $(LIB)

$(LIB): $(LIB_OBJ) preload/exports.map preload/layout.ld
	@echo '  build $@'
	$(Q)$(LINK) $(LINK_FLAGS) $(LDFLAGS) $(LIB_OBJ) -o $@

$(LIB_BUILD)/%.o: %.cc Makefile | $(KERNEL)
	@mkdir -p $(@D)
	@echo '  build $@'
	$(Q)$(CXX) $(LIB_FLAGS) $(CXXFLAGS) -c $< -o $@

$(BUILD)/kernel:
	@mkdir -p $@
	$(Q)ln -sfn /usr/include/linux /usr/include/asm-generic /usr/include/$(MULTIARCH)/asm $@/

# The same library with every MINITC_ASSERT in it, and the whole-program tests on it.
DEBUG_LIB := $(BUILD)/debug/libminitc.so
DEBUG_LIB_IS := LIB=$(DEBUG_LIB) LIB_BUILD=$(BUILD)/debug/lib CXXFLAGS='-O1 -g -DMINITC_DEBUG'
.PHONY: debug
debug:
	@scripts/need.sh $(TEST_PACKAGES)
	@$(MAKE) --no-print-directory -j$(shell nproc) $(DEBUG_LIB_IS) all programs
	@scripts/run_tests.py $(BUILD) --lib $(DEBUG_LIB) --jobs $(shell nproc) \
	  $(if $(ONLY),--only '$(ONLY)') --pytest test/stress test/preload test/misuse

# --- Run it --------------------------------------------------------------------------------------

# The packages that tests and checks use; scripts/need.sh installs what is missing.
RUN_PACKAGES   := python3 sqlite3
COMMAND_PACKAGES := python3-pyelftools python3-rich
TEST_PACKAGES  ?= $(RUN_PACKAGES) catch2 clang libclang-rt-dev python3-pytest redis-server \
                  redis-tools git perl xz-utils binutils strace libcap2-bin procps gdb heaptrack \
                  valgrind libfaketime man-db openssh-server python3-numpy php-cli php-mbstring php-xml \
                  qemu-user $(COMMAND_PACKAGES) gnuplot-nox python3-prometheus-client chromium
CHECK_PACKAGES := python3 python3-pytest binutils clang clang-tidy clang-format libclang-rt-dev

.PHONY: run
run: $(LIB)
	@scripts/need.sh $(RUN_PACKAGES) $(if $(findstring redis,$(CMD)),redis-server redis-tools)
	@scripts/run_workload.py --lib $(abspath $(LIB)) -- $(CMD)

# --- Tests ---------------------------------------------------------------------------------------

# Unit and model tests, three times: with all asserts, and under the sanitizers. clang compiles them
# in half of g++'s time.
VARIANTS    ?= plain asan tsan
UNIT_CXX    ?= clang++
SAN_plain   := -O1
SAN_asan    := -O1 -DTEST_ASAN -fsanitize=address,undefined -fno-sanitize-recover=all \
               -fno-omit-frame-pointer
SAN_tsan    := -O1 -DTEST_TSAN -fsanitize=thread
UNIT_FLAGS   = $(COMMON) -g -DMINITC_DEBUG $(SAN_$(1))
# The tests' own code: without optimisation it is compiled up to three times as fast. Within Catch's
# macros clang compares an unsigned number and a literal with a warning, g++ without.
TESTS_FLAGS  = $(call UNIT_FLAGS,$(1)) -O0 -Wno-sign-compare \
               $(if $(findstring clang,$(UNIT_CXX)),-fpch-instantiate-templates)
UNIT_SRC    := $(wildcard test/unit/*.cc)
MODEL_SRC   := $(wildcard test/model/*.cc)
# The model has a BadPointers::report() of its own.
MODEL_CORE  := $(filter-out core/bad_pointer.cc,$(CORE))
CATCH       := /usr/include/catch2/catch.hpp
# Debian's, or for a machine that it is not compiled for $(BUILD)/catch_main.o.
CATCH_MAIN  ?= -lCatch2WithMain
UNIT_BIN    := $(foreach v,$(VARIANTS),$(BUILD)/test/unit-$(v) $(BUILD)/test/model-$(v))

# $(1): the variant. What all tests include is compiled once for it.
define VARIANT_RULES
$(BUILD)/$(1)/precompiled.h.gch: test/unit/precompiled.h Makefile
	@mkdir -p $$(@D)
	@echo '  build $$@'
	$(Q)$$(UNIT_CXX) $(call TESTS_FLAGS,$(1)) -w -x c++-header $$< -o $$@
$(BUILD)/$(1)/core/%.o: core/%.cc Makefile
	@mkdir -p $$(@D)
	@echo '  build $$@'
	$(Q)$$(UNIT_CXX) $(call UNIT_FLAGS,$(1)) -c $$< -o $$@
$(BUILD)/$(1)/test/%.o: test/%.cc $(BUILD)/$(1)/precompiled.h.gch
	@mkdir -p $$(@D)
	@echo '  build $$@'
	$(Q)$$(UNIT_CXX) $(call TESTS_FLAGS,$(1)) -include $(BUILD)/$(1)/precompiled.h -c $$< -o $$@
$(BUILD)/test/unit-$(1): $(patsubst %.cc,$(BUILD)/$(1)/%.o,$(UNIT_SRC) $(CORE)) \
                         | $(filter %.o,$(CATCH_MAIN))
	@mkdir -p $$(@D)
	@echo '  build $$@'
	$(Q)$$(UNIT_CXX) $(SAN_$(1)) -pthread $$^ $(CATCH_MAIN) -o $$@
$(BUILD)/test/model-$(1): $(patsubst %.cc,$(BUILD)/$(1)/%.o,$(MODEL_SRC) $(MODEL_CORE)) \
                          | $(filter %.o,$(CATCH_MAIN))
	@mkdir -p $$(@D)
	@echo '  build $$@'
	$(Q)$$(UNIT_CXX) $(SAN_$(1)) -pthread $$^ $(CATCH_MAIN) -o $$@
endef
$(foreach v,$(VARIANTS),$(eval $(call VARIANT_RULES,$(v))))

$(BUILD)/catch_main.o: Makefile
	@mkdir -p $(@D)
	@echo '  build $@'
	$(Q)echo '#include "$(CATCH)"' | \
	  $(CXX) $(COMMON) -w -DCATCH_CONFIG_MAIN -x c++ -c - -o $@

# Whole programs. A comment in the first line, // CFLAGS: … or // LDFLAGS: …, adds flags for one; they
# may name $BUILD and $LIB.
export BUILD LIB
PROGRAM_CC  ?= gcc
PROGRAM_CXX ?= g++
PROGRAM_FLAGS := -O1 -g -Wall -Wextra -Werror -fno-builtin -pthread $(PROGRAM_LIBC)
flags_of = $(shell sed -n '1s|^// $(1): ||p' $(2))
SOURCES  := $(wildcard test/misuse/*.c test/misuse/*.cc test/preload/*.c test/preload/*.cc \
              test/stress/*.cc)
SOURCES  := $(filter-out test/stress/templates.cc test/preload/pool_overrun.c $(NOT_BUILT),$(SOURCES))
PLUGINS  := $(patsubst test/%,$(BUILD)/test/%.so,$(basename $(filter test/preload/lib_%,$(SOURCES))))
PROGRAMS := $(patsubst test/%,$(BUILD)/test/%,$(basename $(filter-out test/preload/lib_%,$(SOURCES))))

$(BUILD)/test/preload/lib_%.so: test/preload/lib_%.c
	@mkdir -p $(@D)
	@echo '  build $@'
	$(Q)$(PROGRAM_CC) -std=gnu11 $(PROGRAM_FLAGS) -fPIC -shared $(call flags_of,CFLAGS,$<) $< \
	  $(call flags_of,LDFLAGS,$<) -o $@
$(BUILD)/test/preload/lib_%.so: test/preload/lib_%.cc
	@mkdir -p $(@D)
	@echo '  build $@'
	$(Q)$(PROGRAM_CXX) -std=c++20 $(PROGRAM_FLAGS) -fPIC -shared $(call flags_of,CFLAGS,$<) $< \
	  $(call flags_of,LDFLAGS,$<) -o $@
$(BUILD)/test/%: test/%.c $(PLUGINS) $(wildcard test/*/*.h) | $(KERNEL)
	@mkdir -p $(@D)
	@echo '  build $@'
	$(Q)$(PROGRAM_CC) -std=gnu11 $(PROGRAM_FLAGS) $(call flags_of,CFLAGS,$<) $< $(call flags_of,LDFLAGS,$<) -o $@
$(BUILD)/test/%: test/%.cc $(PLUGINS) $(wildcard test/*/*.h)
	@mkdir -p $(@D)
	@echo '  build $@'
	$(Q)$(PROGRAM_CXX) -std=c++20 $(PROGRAM_FLAGS) $(call flags_of,CFLAGS,$<) $< $(call flags_of,LDFLAGS,$<) -o $@

# What is linked with the library.
$(BUILD)/test/preload/pools_linked $(BUILD)/test/preload/pool_resource: | $(LIB)

# The benchmark's programs: built as programs commonly are, but without -fno-builtin the compiler
# might leave allocations out.
BENCH_FLAGS := -O2 -g -Wall -Wextra -Werror -fno-builtin -pthread
BENCH_DIR   := $(BUILD)/test/bench
BENCHES     := $(patsubst test/%.cc,$(BUILD)/test/%,$(wildcard test/bench/*.cc)) $(BENCH_DIR)/measure

$(BENCH_DIR)/bench.h.gch: test/bench/bench.h Makefile
	@mkdir -p $(@D)
	@echo '  build $@'
	$(Q)g++ -std=c++20 $(BENCH_FLAGS) -w -x c++-header $< -o $@
$(BENCH_DIR)/%: test/bench/%.cc $(BENCH_DIR)/bench.h.gch $(wildcard test/bench/*.h) preload/minitc.h
	@mkdir -p $(@D)
	@echo '  build $@'
	$(Q)g++ -std=c++20 $(BENCH_FLAGS) -include $(BENCH_DIR)/bench.h $< -o $@
$(BENCH_DIR)/measure: test/bench/measure.c Makefile
	@mkdir -p $(@D)
	@echo '  build $@'
	$(Q)$(PROGRAM_CC) -std=gnu11 $(BENCH_FLAGS) -static $< -o $@

.PHONY: programs unit
programs: $(PROGRAMS) $(PLUGINS) $(if $(PLATFORM),,$(BENCHES))
unit: $(UNIT_BIN)

# The packages first: the programs do not compile without Catch2. Then one make that may use all cores.
.PHONY: test
test:
	@scripts/need.sh $(TEST_PACKAGES)
	@$(MAKE) --no-print-directory -j$(shell nproc) all unit programs
	@scripts/run_tests.py $(BUILD) --lib $(LIB) --jobs $(shell nproc) \
	  $(if $(ONLY),--only '$(ONLY)') $(foreach b,$(UNIT_BIN),--catch $(notdir $(b))=$(b)) $(TEST_ARGS)
ifeq ($(PLATFORM),)
test: TEST_ARGS := --pytest test/stress test/preload test/misuse test/command \
                   --last compatibility='scripts/check_compatibility.py --ran'
else
# Tests whose programs are ours: there are no others for the platform.
test: TEST_ARGS := --platform $(PLATFORM) --runner '$(RUNNER)' --pytest test/misuse \
                   $(patsubst %,test/preload/test_%.py,fork life_cycle limits loading semantics symbols)
endif

.PHONY: test-aarch64 test-musl
test-aarch64 test-musl: test-%:
	@$(MAKE) --no-print-directory PLATFORM=$* BUILD=$(BUILD)/$* LIB=$(BUILD)/$*/libminitc.so test

# --- Fuzzing and soaking -------------------------------------------------------------------------

# The model of test/model, driven by clang's libFuzzer. New inputs and findings are left in
# $(BUILD)/fuzz; make fuzz-merge brings the corpus up to date with them.
FUZZ_SECONDS  ?= 120
FUZZ_PACKAGES := python3 clang libclang-rt-dev binutils
FUZZ_FLAGS    := -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
FUZZ_SRC      := $(wildcard test/fuzz/*.cc) $(filter-out %_test.cc,$(MODEL_SRC)) $(MODEL_CORE)
FUZZ_OBJ      := $(patsubst %.cc,$(BUILD)/fuzz/%.o,$(FUZZ_SRC))

# The fuzzer looks for inputs that reach more of core/, not of the model.
$(BUILD)/fuzz/core/%.o: FUZZ_FLAGS += -fsanitize=fuzzer-no-link
$(BUILD)/fuzz/%.o: %.cc Makefile
	@mkdir -p $(@D)
	@echo '  build $@'
	$(Q)clang++ $(COMMON) -DMINITC_DEBUG $(FUZZ_FLAGS) -c $< -o $@
$(BUILD)/fuzz/fuzz_heap: $(FUZZ_OBJ)
	@echo '  build $@'
	$(Q)clang++ $(FUZZ_FLAGS) -fsanitize=fuzzer $^ -o $@

.PHONY: fuzz fuzz-merge soak
fuzz fuzz-merge:
	@scripts/need.sh $(FUZZ_PACKAGES)
	@$(MAKE) --no-print-directory -j$(shell nproc) $(BUILD)/fuzz/fuzz_heap
	@scripts/run_fuzz.py $(BUILD)/fuzz/fuzz_heap test/fuzz/corpus \
	  $(if $(findstring merge,$@),--merge,--seconds $(FUZZ_SECONDS))

# The first half of the time on the library, the second on the one with every assert in it.
SOAK_SECONDS ?= 1800
soak:
	@scripts/need.sh python3
	@$(MAKE) --no-print-directory -j$(shell nproc) $(LIB) $(BUILD)/test/stress/churn
	@$(MAKE) --no-print-directory -j$(shell nproc) $(DEBUG_LIB_IS) all
	@scripts/run_soak.py $(BUILD)/test/stress/churn release=$(LIB) debug=$(DEBUG_LIB) \
	  --seconds $(SOAK_SECONDS)

# --- Checks --------------------------------------------------------------------------------------

.PHONY: check
check: $(LIB)
	@scripts/need.sh $(CHECK_PACKAGES)
	@scripts/run_checks.py \
	  layers='scripts/check_layers.py' \
	  exports='scripts/check_exports.py $(LIB) preload/exports.map $(LIB_OBJ)' \
	  fastpath='scripts/check_fastpath.py $(LIB) test/golden/fastpath.txt' \
	  headers='scripts/check_headers.sh' \
	  invariants='scripts/check_invariants.py' \
	  locks='scripts/check_locks.py' \
	  stack='scripts/check_stack.py preload/exports.map $(LIB_OBJ:.o=.ci)' \
	  compatibility='scripts/check_compatibility.py' \
	  style='scripts/check_style.py' \
	  tidy='scripts/check_tidy.sh'

# --- Benchmark ------------------------------------------------------------------------------------

# make bench BENCH=pattern runs some workloads, PEERS=name=path,… adds contestants, N=10 repeats more,
# THREADS=1,2,4,8,16 sets the numbers of threads. make bench-memory DOCS=1 puts its tables and charts
# into docs/memory.md.
BENCH    ?=
PEERS    ?=
N        ?=
THREADS  ?=
PEER_PACKAGES  := libjemalloc2 libtcmalloc-minimal4 libmimalloc2.0
BENCH_PACKAGES := $(RUN_PACKAGES) $(PEER_PACKAGES) bc binutils gnuplot-nox perl redis-server \
                  redis-tools xz-utils
BENCH_ARGS = --lib $(LIB) --programs $(BENCH_DIR) --only '$(BENCH)' --peers '$(PEERS)'

.PHONY: bench bench-quick bench-instructions bench-memory bench-memory-quick bench-pool bench-programs
bench-programs: $(BENCHES)

bench bench-quick: $(LIB) bench-programs
	@scripts/need.sh $(BENCH_PACKAGES)
	@scripts/bench.py $(BENCH_ARGS) --out $(BUILD)/$@ $(if $(N),-n '$(N)') \
	  --threads '$(THREADS)' $(if $(findstring quick,$@),--quick)

bench-memory bench-memory-quick: $(LIB) bench-programs
	@scripts/need.sh $(BENCH_PACKAGES) strace
	@scripts/bench_memory.py $(BENCH_ARGS) --out $(BUILD)/$@ $(if $(N),-n '$(N)') \
	  $(if $(findstring quick,$@),--quick) $(if $(DOCS),--document docs/memory.md)

bench-instructions: $(LIB) bench-programs
	@scripts/need.sh python3 binutils valgrind $(PEER_PACKAGES)
	@mkdir -p $(BUILD)/$@
	@scripts/bench_instructions.py $(BENCH_ARGS) --json $(BUILD)/$@/result.json

bench-pool: $(LIB) bench-programs
	@scripts/need.sh python3 binutils valgrind $(PEER_PACKAGES)
	@mkdir -p $(BUILD)/$@
	@scripts/bench_pool.py $(BENCH_ARGS) --work $(BUILD)/$@ --json $(BUILD)/$@/result.json \
	  $(if $(N),-n '$(N)')

# --- Install -------------------------------------------------------------------------------------

# The command finds the library beside its own folder: ../libminitc.so, as in the checkout.
COMMAND := $(wildcard scripts/minitc_*.py) \
           $(patsubst %,scripts/bench_%.py,contestants measure report)

.PHONY: install clean
install: $(LIB) $(BENCH_DIR)/measure
	install -D -m 755 $(LIB) $(DESTDIR)$(PREFIX)/lib/libminitc.so
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/include preload/minitc.h preload/minitc_pool.hpp
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/lib/minitc scripts/minitc $(BENCH_DIR)/measure
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/minitc $(COMMAND)
	install -d $(DESTDIR)$(PREFIX)/bin
	ln -sfn ../lib/minitc/minitc $(DESTDIR)$(PREFIX)/bin/minitc
	install -D -m 644 docs/libminitc.3 $(DESTDIR)$(PREFIX)/share/man/man3/libminitc.3
	install -D -m 644 docs/minitc.1 $(DESTDIR)$(PREFIX)/share/man/man1/minitc.1
	install -D -m 644 scripts/minitc.bash \
	  $(DESTDIR)$(PREFIX)/share/bash-completion/completions/minitc

clean:
	rm -rf $(BUILD) $(LIB)

-include $(LIB_OBJ:.o=.d)
-include $(FUZZ_OBJ:.o=.d)
-include $(foreach v,$(VARIANTS),$(BUILD)/$(v)/precompiled.h.d \
                                 $(patsubst %.cc,$(BUILD)/$(v)/%.d,$(UNIT_SRC) $(MODEL_SRC) $(CORE)))
