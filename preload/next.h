// The definition of one of our exported functions that lies behind ours in the order of search.
#pragma once

#include <atomic>

#include "core/base.h"

namespace MINITC_HIDDEN minitc {

class Next {
 public:
  // `version`: of the symbol in glibc.
  constexpr Next(const char* symbol, const char* version) : symbol_(symbol), version_(version) {}

  // Null if there is none; dlerror() then has the search's error. `own`: our definition.
  template <typename Function>
  Function* behind(Function* own) {
    void* found = known_.load(std::memory_order_relaxed);
    if (found == nullptr) found = search(reinterpret_cast<const void*>(own));
    return reinterpret_cast<Function*>(found);
  }

 private:
  MINITC_COLD void* search(const void* own);

  const char* const symbol_;
  const char* const version_;
  std::atomic<void*> known_{nullptr};  // from the first call on: at the start the search would cost
                                       // time, and run code of libraries that interpose dlsym
};

}  // namespace minitc
