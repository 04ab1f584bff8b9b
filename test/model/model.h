// A heap on a kernel that refuses, checked step by step against a plain record of what the program
// holds: where, how many bytes, filled with what. What is done is decided by whoever drives it: a
// seed in model_test.cc, the bytes of an input in test/fuzz.
#pragma once

#include <cstddef>
#include <string_view>

#include "test/model/choices.h"

namespace minitc::test {

struct ModelLimits {
  std::size_t steps;
  std::size_t objects;      // at a time; a step may go beyond, as with bytes
  std::size_t bytes;        // likewise
  std::size_t check_every;  // steps
};

// Aborts, after a line on stderr, when the heap does something wrong.
void run_model(Choices& choices, const ModelLimits& limits);

// The same with decisions made by the bytes of an input, in a thread of its own: what a thread has
// done before must not change what an input does.
void run_input(std::string_view bytes);

}  // namespace minitc::test
