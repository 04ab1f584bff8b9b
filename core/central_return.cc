// CentralCache: memory behind free objects goes back to the OS from spans that stay in use.
#include <string.h>

#include "core/central_cache.h"

namespace minitc {
namespace {

// Calls of return_pages() that this thread is in: more than one if a signal handler allocates.
[[gnu::tls_model("initial-exec")]] constinit thread_local unsigned t_returns = 0;

}  // namespace

std::size_t CentralCache::return_pages(bool only_quiet, std::size_t& spans) {
  std::size_t bytes = 0;
  ++t_returns;
  for (; spans != 0; --spans) {
    std::uint64_t free[kMaxWords];
    std::size_t count;
    Span* const span = begin_return(only_quiet, free, count);
    if (span == nullptr) break;
    bytes += return_free(*span, free);
    end_return(span, count);
  }
  --t_returns;
  return bytes;
}

// A span out of its list, with its free bits and their count as they are now: objects may come home
// to it, but none is carved from it. Null if there is no more. Of each list the span is tried that
// has been there for the longest time.
Span* CentralCache::begin_return(bool only_quiet, std::uint64_t (&free)[kMaxWords],
                                 std::size_t& count) {
  // A class without spans is not written to, not even its lock.
  if ((occupied_.load(std::memory_order_relaxed) & kResidentLists) == 0) return nullptr;
  const LockGuard guard(lock_, *this);
  const std::size_t least = base_.heap->os_page_bytes();
  for (std::size_t width = kLists / 2 - 1; width != 0 && size_class().bytes << width > least;
       --width) {
    Span* const span = lists_[2 * width].back();
    if (span == nullptr) continue;
    if (only_quiet && !span->is_quiet(base_.heap->round())) continue;
    unlist_locked(span, 2 * width);
    span->backing = Backing::kReturning;
    span->zero = false;  // who refuses to take pages may have written to them
    returning_.push(span);
    memcpy(free, span->bits, span->words() * sizeof(std::uint64_t));
    count = span->free_count;
    return span;
  }
  return nullptr;
}

// Of each row of free objects; one at the end of the span goes to its last page.
std::size_t CentralCache::return_free(const Span& span, const std::uint64_t* free) const {
  const SizeClass& c = size_class();
  const auto is_free = [free](std::size_t i) { return (free[i / 64] & Span::mask_of(i)) != 0; };
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < c.objects; ++i) {
    if (!is_free(i)) continue;
    char* const begin = span.start.ptr() + i * c.bytes;
    while (i < c.objects && is_free(i)) ++i;
    const char* const end = i == c.objects ? span.end().ptr() : span.start.ptr() + i * c.bytes;
    bytes += base_.heap->return_inside(begin, end);
  }
  return bytes;
}

// Where objects have come home meanwhile there may be more to return.
void CentralCache::end_return(Span* span, std::size_t count) {
  SpanList empties;
  {
    const LockGuard guard(lock_, *this);
    returning_.remove(span);
    span->backing = span->free_count == count ? Backing::kReturned : Backing::kResident;
    if (span->free_count == size_class().objects) {
      remove_span_locked(span, empties);
    } else {
      list_locked(span, list_of(*span, span->free_count));
    }
  }
  delete_spans(empties);
}

// But where this thread returns pages itself, and forks in a signal handler, it goes on with its
// span, and what others had in hand is lost.
void CentralCache::adopt_returning() {
  if (t_returns != 0) return;
  while (Span* const span = returning_.pop()) {
    span->backing = Backing::kResident;
    if (span->free_count == size_class().objects) fresh_.push(span);
    list_locked(span, list_of(*span, span->free_count));
  }
}

}  // namespace minitc
