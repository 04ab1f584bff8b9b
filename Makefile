# libminitc: `make` builds the library with no package but the compiler. README.md says the rest.

CXX      ?= g++
BUILD    ?= build
LIB      ?= libminitc.so
PREFIX   ?= /usr/local
DESTDIR  ?=
CMD      ?=

CXXFLAGS ?= -O2 -g
WARN     := -Wall -Wextra -Werror
COMMON   := -std=c++20 -I. $(WARN) -MMD -MP -pthread
CORE_FLAGS := $(COMMON) -fno-exceptions -fno-rtti -fno-threadsafe-statics
LIB_FLAGS  := $(CORE_FLAGS) -fPIC -fvisibility=hidden -ftls-model=initial-exec \
              -ffunction-sections -fdata-sections -fno-plt
# The C++ driver would add libstdc++ and libm; gcc and clang have C drivers that do not.
LINK     := $(if $(findstring clang,$(CXX)),clang,gcc)
LDFLAGS  := -shared -static-libgcc -Wl,-soname,libminitc.so -Wl,--version-script=preload/exports.map \
            -Wl,-z,now,-z,relro,-z,nodelete,-z,defs -Wl,--gc-sections -Wl,--as-needed -pthread

CORE     := $(wildcard core/*.cc)
PRELOAD  := $(wildcard preload/*.cc)
LIB_OBJ  := $(patsubst %.cc,$(BUILD)/lib/%.o,$(CORE) $(PRELOAD))

.PHONY: all
all: $(LIB)

$(LIB): $(LIB_OBJ) preload/exports.map
	$(LINK) $(LDFLAGS) $(LIB_OBJ) -o $@

$(BUILD)/lib/%.o: %.cc Makefile
	@mkdir -p $(@D)
	$(CXX) $(LIB_FLAGS) $(CXXFLAGS) -c $< -o $@
