// The page heap's way back to the OS: which runs go, when, and what others see of it.
#include <algorithm>
#include <utility>

#include "core/page_heap.h"

namespace minitc {

std::size_t PageHeap::trim() { return return_excess(Keep::kNothing).bytes(); }

void PageHeap::adopt_returning() {
  leaving_ = PageCount{};
  for (Span* run = returning_runs_.front(); run != nullptr;) {
    Span* const next = run->next;
    if (run->returned_by() != this_holder()) end_return_locked(run, /*returned=*/false);
    run = next;
  }
}

// What a program has just taken of its free pages within a short time it will soon take again; but
// it may have been the same ones each time, so no more than goes with what is in use. A bound that
// is still too low shows when it takes pages that were given back for the bound lately: that many
// more are kept, until fewer are needed. But what is in use and what is kept never come to much
// more than what was in use at the most, so that the peak of the resident set is that of the
// program.
PageCount PageHeap::own_bound_locked(Keep keep) const {
  switch (keep) {
    case Keep::kNothing:
      return PageCount{};
    case Keep::kAged:
      return committed_locked() - std::min(aged_, committed_locked());
    case Keep::kBound: {
      if (fixed_bound_ != PageCount{}) return fixed_bound_;
      const PageCount least = PageCount::of_bytes(kMinFreeBound);
      const PageCount reused = std::min(std::max(reused_, reused_before_), stats_.in_use + least);
      return std::max({least, PageCount{stats_.in_use.value >> kFreeBoundShift}, reused}) + missed_;
    }
    case Keep::kAtPeak:
      if (fixed_bound_ != PageCount{}) return fixed_bound_;
      return stats_.peak - used_locked() +
             (wants_huge_pages() ? PageCount{stats_.peak.value / kHugePeakBoundPart}
                                 : std::max(PageCount::of_bytes(kMinPeakBound),
                                            PageCount{stats_.peak.value / kPeakBoundPart}));
  }
  __builtin_unreachable();
}

// The soft limit leaves free pages what is not held: they go before it is passed, and all of them
// where the program alone has passed it.
PageCount PageHeap::bound_locked(Keep keep) const {
  const PageCount held = held_locked();
  return std::min(own_bound_locked(keep), held < soft_limit_ ? soft_limit_ - held : PageCount{});
}

// `pages` of a run in `state` are put in use.
void PageHeap::note_taken_locked(SpanState state, PageCount pages) {
  if (state != SpanState::kReturned) {
    reused_ += pages;
    return;
  }
  const PageCount again = std::min(pages, given_back_);
  given_back_ -= again;
  missed_ += again;
}

// The longest committed free run, as kReturning, if there are more free pages than `bound`. Of what
// has aged it is the longest that has been quiet, if one has, as it is long ones that others are
// cut from; and no more of it than is too much. Only whole units. Where huge pages are wanted, of
// those if the run has one: what goes back of it in part comes back page by page.
Span* PageHeap::take_excess_locked(PageCount bound, Keep keep) {
  if (committed_locked() <= bound) return nullptr;
  // More than is too much, so that long runs come of it; in slices, so that others get the lock.
  dissolve_locked(std::max(committed_locked() - bound, PageCount{kMaxDissolved}));
  PageCount unit = unit_locked(keep);
  const auto has = [](const Span* r, PageCount u) { return r->length >= r->head(u) + u; };
  Span* run = keep == Keep::kAged ? free_.longest_quiet(round()) : nullptr;
  if (run == nullptr || !has(run, unit)) run = free_.longest();
  if (!has(run, unit)) {  // then all are short, and one of them may lie better
    run = free_.best_fit(unit);
    while (run != nullptr && !has(run, unit)) run = free_.next(run);
  }
  if (run == nullptr) {
    if (keep != Keep::kNothing) decommit_pause_ = kDecommitPause;
    return nullptr;
  }
  const PageCount excess = committed_locked() - bound;
  free_.remove(run);
  if (wants_huge_pages() && keep != Keep::kNothing) {
    round_to_huge_pages_locked(run);
    run = coalesce_locked(run);  // what it was rounded by may have parted it from another
    const PageCount huge = PageCount::of_bytes(kHugePageBytes);
    if (has(run, huge)) unit = huge;
  }
  const PageCount head = run->head(unit);
  PageCount most = run->length - head;
  if (keep == Keep::kAged) most = std::min(most, excess);
  const PageCount whole{std::max(align_down(most.value, unit.value), unit.value)};

  run = cut_locked(run, head, whole);
  if (run != nullptr) begin_return_locked(run);
  return run;
}

// Of what goes back to the OS: a page of the kernel; where the user wants huge ones a huge page, up
// to the soft limit.
PageCount PageHeap::unit_locked(Keep keep) const {
  const bool whole_huge = huge_pages_ == Options::kYes && keep != Keep::kNothing &&
                          held_locked() + committed_locked() <= soft_limit_;
  return PageCount::of_bytes(whole_huge ? kHugePageBytes : os_->page_bytes);
}

void PageHeap::begin_return_locked(Span* run) {
  run->become(SpanState::kReturning);
  run->returned_by() = this_holder();
  returning_ += run->length;
  aged_ -= std::min(aged_, run->length);
  returning_runs_.push(run);
}

// Cuts a run that the OS has refused; the other half, or null if it would be too short or there is
// no memory to describe it. One of moved pages is not refused for what is locked.
Span* PageHeap::halve_locked(Span* run, Keep keep) {
  const PageCount half{align_down(run->length.value / 2, unit_locked(keep).value)};
  if (half.bytes() < kMinHalfBytes || run->mapping != 0) return nullptr;
  Span* const rest = split_locked(run, half);
  if (rest == nullptr) return nullptr;
  rest->returned_by() = run->returned_by();
  returning_runs_.push(rest);
  return rest;
}

void PageHeap::end_return_locked(Span* run, bool returned) {
  returning_runs_.remove(run);
  returning_ -= run->length;
  if (returned) end_mapping_locked(run);
  run->become(returned ? SpanState::kReturned : SpanState::kFree);
  insert_locked(coalesce_locked(run));
  returns_.fetch_add(1, std::memory_order_relaxed);
  if (!return_awaited_) return;
  return_awaited_ = false;
  futex_wake_all(&returns_);
}

bool PageHeap::age(std::uint32_t now_ms) {
  bool is_time;
  PageCount most;
  {
    const LockGuard guard(lock_, *this);
    if (have_passed(kReuseMs, reused_ms_, now_ms)) {
      reused_before_ = have_passed(2 * kReuseMs, reused_ms_, now_ms) ? PageCount{} : reused_;
      reused_ = PageCount{};
      reused_ms_ = now_ms;
    }
    aged_ = std::min(aged_, committed_locked());
    is_time = have_passed(kAgeMs, aged_ms_, now_ms);
    if (is_time) {
      aged_ms_ = now_ms;
      round_.store(static_cast<std::uint8_t>(round() + 1), std::memory_order_relaxed);
      const PageCount idle{std::min(least_free_, committed_locked() - aged_).value / kAgedPart};
      missed_ -= std::min(missed_, idle);
      given_back_ = PageCount{};
      if (fixed_bound_ == PageCount{}) aged_ += idle;
      least_free_ = committed_locked() - aged_;
    }
    if (!have_passed(1, ticked_ms_, now_ms)) return is_time;
    most = PageCount{(now_ms - ticked_ms_) * kAgedPerMs};
    ticked_ms_ = now_ms;
    if (aged_ == PageCount{}) return is_time;
  }
  return_excess(Keep::kAged, most);
  return is_time;
}

std::size_t PageHeap::return_inside(char* begin, const char* end) {
  const auto beyond_page = [this](const char* at) {
    return reinterpret_cast<std::uintptr_t>(at) & (os_->page_bytes - 1);
  };
  char* const first = begin + (-beyond_page(begin) & (os_->page_bytes - 1));
  const char* const last = end - beyond_page(end);
  if (first >= last) return 0;
  const auto bytes = static_cast<std::size_t>(last - first);
  if (!give_back(first, bytes)) return 0;
  bytes_inside_.fetch_add(bytes, std::memory_order_relaxed);
  return bytes;
}

// Returns the longest runs, a few at a time, until the bound holds or `most` are returned. What
// other threads free meanwhile is theirs to return. Runs that the OS refuses are set aside until
// the end, or they would be the longest again and keep all others: the program may have locked a
// page and freed it.
PageCount PageHeap::return_excess(Keep keep, PageCount most) {
  PageCount done;
  Span* runs[kReturnBatch];
  std::size_t refused = 0;  // the first of them
  for (;;) {
    const std::size_t count = begin_returns(keep, done, most, runs, refused);
    if (count == refused) break;
    for (std::size_t i = refused; i < count; ++i) {
      if (!give_back(runs[i])) std::swap(runs[refused++], runs[i]);
    }
    done += end_returns(runs + refused, count - refused, /*returned=*/true, keep);
  }
  end_returns(runs, refused, /*returned=*/false, keep);
  return done;
}

// Adds to `runs`, of which the OS has refused the first. Of those, long ones come again by halves,
// but not so many that other runs would find no place; `refused` are left. `done` pages have been
// returned of `most`, which is no more than were committed at first. How many runs there are.
std::size_t PageHeap::begin_returns(Keep keep, PageCount done, PageCount& most,
                                    Span* (&runs)[kReturnBatch], std::size_t& refused) {
  arena_->refill_if_low();
  const LockGuard guard(lock_, *this);
  std::size_t count = refused;
  for (std::size_t i = 0; i < refused && count < kMaxHalves;) {
    Span* const half = halve_locked(runs[i], keep);
    if (half == nullptr) {
      ++i;
    } else {
      runs[count++] = half;
      std::swap(runs[i], runs[--refused]);
    }
  }
  if (keep != Keep::kNothing && decommit_pause_ != 0) {
    --decommit_pause_;
    return count;
  }
  most = std::min(most, done + committed_locked());
  const std::size_t slack_part = keep == Keep::kBound ? kReturnSlackPart : SIZE_MAX;
  while (count < kReturnBatch && done < most) {
    const PageCount bound = bound_locked(keep);
    const PageCount beyond = committed_locked() - std::min(committed_locked(), most - done);
    const PageCount kept = std::max(bound - PageCount{bound.value / slack_part}, beyond);
    runs[count] = take_excess_locked(kept, keep);
    if (runs[count] == nullptr) break;
    done += runs[count++]->length;
  }
  return count;
}

// The OS has taken the runs, or refused each. The pages that it has taken.
PageCount PageHeap::end_returns(Span* const* runs, std::size_t count, bool returned, Keep keep) {
  PageCount pages;
  if (count == 0) return pages;
  const LockGuard guard(lock_, *this);
  for (std::size_t i = 0; i < count; ++i) {
    if (returned) pages += runs[i]->length;
    end_return_locked(runs[i], returned);
  }
  if (returned) {
    stats_.runs_returned += count;
    if (keep == Keep::kBound) given_back_ += pages;
  } else {
    decommit_pause_ = kDecommitPause;
  }
  return pages;
}

}  // namespace minitc
