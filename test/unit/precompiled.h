// What nearly all unit tests include: compiled once for them (Makefile).
#pragma once

#include <catch2/catch.hpp>

#include "test/unit/support.h"
