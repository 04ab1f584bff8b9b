// The page heap's way back to the OS: which runs go, when, and what others see of it.
#include <algorithm>

#include "core/page_heap.h"

namespace minitc {

std::size_t PageHeap::trim() { return return_excess(Keep::kNothing).bytes(); }

void PageHeap::adopt_returning() {
  for (Span* run = returning_runs_.front(); run != nullptr;) {
    Span* const next = run->next;
    if (run->returned_by() != holder_number()) end_return_locked(run, /*returned=*/false);
    run = next;
  }
}

// A bound that is too low for a program shows when it takes pages that were given back for the
// bound: that many more are kept, until fewer are needed. But what is in use and what is kept never
// come to much more than what was in use at the most, so that the peak of the resident set is that
// of the program.
PageCount PageHeap::bound_locked(Keep keep) const {
  if (keep == Keep::kNothing) return PageCount{};
  if (fixed_bound_ != PageCount{}) return fixed_bound_;
  if (keep == Keep::kBound) {
    return std::max(PageCount::of_bytes(kMinFreeBound),
                    PageCount{stats_.in_use.value >> kFreeBoundShift}) +
           missed_;
  }
  return stats_.peak - stats_.in_use +
         std::max(PageCount::of_bytes(kMinPeakBound),
                  PageCount{stats_.peak.value / kPeakBoundPart});
}

// Returned pages are put in use.
void PageHeap::miss_locked(PageCount pages) {
  const PageCount again = std::min(pages, given_back_);
  given_back_ -= again;
  missed_ += again;
}

// The longest committed free run if there are more such pages than `bound`, as kReturning. Kernel
// pages may be longer than ours: then only those that lie whole in the run.
Span* PageHeap::take_excess_locked(PageCount bound) {
  if (committed_locked() <= bound) return nullptr;
  // More than is too much, so that long runs come of it; in slices, so that others get the lock.
  dissolve_locked(std::max(committed_locked() - bound, PageCount{kMaxDissolved}));
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
  run = cut_locked(run, head, whole);
  if (run != nullptr) begin_return_locked(run);
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

// Returns the longest runs, one at a time, until the bound holds. What other threads free meanwhile
// is theirs to return.
PageCount PageHeap::return_excess(Keep keep) {
  PageCount done;
  PageCount most;
  for (bool first = true;; first = false) {
    Span* run;
    {
      const LockGuard guard(lock_, *this);
      if (keep != Keep::kNothing && decommit_pause_ != 0) {
        --decommit_pause_;
        return done;
      }
      if (first) most = committed_locked();
      if (done >= most) return done;
      run = take_excess_locked(bound_locked(keep));
      if (run == nullptr) return done;
    }
    const bool returned = os_->decommit(run->start.ptr(), run->length.bytes());
    {
      const LockGuard guard(lock_, *this);
      if (returned) {
        done += run->length;
        ++stats_.returned_calls;
        if (keep == Keep::kBound) given_back_ += run->length;
        missed_ -= std::min(missed_, PageCount{run->length.value / kMissedPart});
      } else {
        decommit_pause_ = kDecommitPause;
      }
      end_return_locked(run, returned);
    }
    if (!returned) return done;
  }
}

}  // namespace minitc
