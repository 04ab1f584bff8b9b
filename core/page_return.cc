// The page heap's way back to the OS: which runs go, when, and what others see of it.
#include <algorithm>

#include "core/page_heap.h"

namespace minitc {

std::size_t PageHeap::trim() { return return_excess(/*all=*/true).bytes(); }

void PageHeap::adopt_returning() {
  for (Span* run = returning_runs_.front(); run != nullptr;) {
    Span* const next = run->next;
    if (run->returned_by() != holder_number()) end_return_locked(run, /*returned=*/false);
    run = next;
  }
}

PageCount PageHeap::bound_locked() const {
  if (fixed_bound_ != PageCount{}) return fixed_bound_;
  return std::max(PageCount::of_bytes(kMinFreeBound),
                  PageCount{stats_.in_use.value >> kFreeBoundShift});
}

// The longest committed free run if there are more such pages than `bound`, as kReturning. Kernel
// pages may be longer than ours: then only those that lie whole in the run.
Span* PageHeap::take_excess_locked(PageCount bound) {
  if (free_.pages() <= bound) return nullptr;
  const PageCount unit{std::max(os_->page_bytes, kPageBytes) >> kPageShift};
  const auto head_of = [unit](const Span* r) {
    return PageCount{-r->start.value & (unit.value - 1)};
  };
  const auto has_unit = [&](const Span* r) { return r->length >= head_of(r) + unit; };
  Span* run = free_.longest();
  if (!has_unit(run)) {  // then all are short, and one of them may lie better
    run = nullptr;
    free_.for_each([&](Span* other) {
      if (has_unit(other)) run = other;
    });
  }
  if (run == nullptr) {
    if (bound != PageCount{}) decommit_pause_ = kDecommitPause;
    return nullptr;
  }
  const PageCount head = head_of(run);
  const PageCount whole{align_down((run->length - head).value, unit.value)};

  free_.remove(run);
  if (head != PageCount{}) {
    Span* const rest = split_locked(run, head);
    insert_locked(run);
    if (rest == nullptr) return nullptr;
    run = rest;
  }
  if (run->length > whole) {
    Span* const rest = split_locked(run, whole);
    insert_locked(rest != nullptr ? rest : coalesce_locked(run));
    if (rest == nullptr) return nullptr;
  }
  begin_return_locked(run);
  return run;
}

void PageHeap::begin_return_locked(Span* run) {
  run->become(SpanState::kReturning);
  run->returned_by() = holder_number();
  returning_ += run->length;
  returning_runs_.push(run);
}

void PageHeap::end_return_locked(Span* run, bool returned) {
  returning_runs_.remove(run);
  returning_ -= run->length;
  run->become(returned ? SpanState::kReturned : SpanState::kFree);
  insert_locked(coalesce_locked(run));
  returns_.fetch_add(1, std::memory_order_relaxed);
  if (!return_awaited_) return;
  return_awaited_ = false;
  futex_wake_all(returns_);
}

// Returns the longest runs, one at a time, until the bound holds; `all`: until none is left. What
// other threads free meanwhile is theirs to return.
PageCount PageHeap::return_excess(bool all) {
  PageCount done;
  PageCount most;
  for (bool first = true;; first = false) {
    Span* run;
    {
      const LockGuard guard(lock_, *this);
      if (!all && decommit_pause_ != 0) {
        --decommit_pause_;
        return done;
      }
      if (first) most = free_.pages();
      if (done >= most) return done;
      run = take_excess_locked(all ? PageCount{} : bound_locked());
      if (run == nullptr) return done;
    }
    const bool returned = os_->decommit(run->start.ptr(), run->length.bytes());
    {
      const LockGuard guard(lock_, *this);
      if (returned) {
        done += run->length;
        ++stats_.returned_calls;
      } else {
        decommit_pause_ = kDecommitPause;
      }
      end_return_locked(run, returned);
    }
    if (!returned) return done;
  }
}

}  // namespace minitc
