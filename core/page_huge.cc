// The kernel's huge pages, where the user leaves them to the library: what it asks for, and when it
// changes its mind. A first touch of one costs a small part of what those of its pages would.
#include <algorithm>

#include "core/page_heap.h"
#include "core/zeros.h"

namespace minitc {
namespace {

// How much of a page is looked at. Who writes to a page writes to its first bytes, mostly.
constexpr std::size_t kLookBytes = 4096;

}  // namespace

void PageHeap::review_huge_pages() {
  if (!chooses_huge_pages()) return;
  {
    const LockGuard guard(lock_, *this);
    const bool avoids = has_many_pieces_locked();
    if (!avoids && !is_written_locked(PageCount{})) return;
    const HugePages wanted = avoids ? HugePages::kAvoided : HugePages::kWanted;
    if (asked_.exchange(wanted, std::memory_order_relaxed) == wanted) return;
  }
  advise_areas();
}

// Before the heap grows for a large block, or for small spans if that is of no pages: it may have
// become one of which less is known.
void PageHeap::stop_asking_if_unlikely_locked(PageCount block) {
  if (!chooses_huge_pages() || !wants_huge_pages() || is_written_locked(block)) return;
  asked_.store(HugePages::kNothing, std::memory_order_relaxed);
}

// Area by area, as each call takes long. One that grows meanwhile has been told where it did.
void PageHeap::advise_areas() {
  const Area* area = nullptr;
  for (bool is_first = true;; is_first = false) {
    PageId start;
    PageCount length;
    {
      const LockGuard guard(lock_, *this);
      area = is_first || areas_ == nullptr ? areas_ : area->next;
      if (area == nullptr) return;
      start = area->start;
      length = area->length;
    }
    advise(start, length);
  }
}

// What has gone back in pieces shorter than a huge page. While those are avoided half as much is
// too much, so that the answer stays.
bool PageHeap::has_many_pieces_locked() const {
  const std::size_t bytes =
      returned_.short_pages().bytes() + bytes_inside_.load(std::memory_order_relaxed);
  const std::size_t most = std::max(kMinPieceBytes, stats_.in_use.bytes() >> kPieceShift);
  return bytes >= (avoids_huge_pages() ? most / 2 : most);
}

// Whether the heap is large, was one of large blocks when that was first so, and they, with `more`,
// are likely to be written to.
bool PageHeap::is_written_locked(PageCount more) const {
  const PageCount large = stats_.large + more;
  return stats_.in_use.bytes() >= kMinHugeBytes && written_.value >= large.value / kWrittenPart &&
         (wants_huge_pages() || large + large >= stats_.in_use + more);
}

// Looks at a large block that is about to be freed, if its pages were all zero when it was
// acquired. Not under the lock: a look may take a page fault. The program may have protected a
// page, or kept it from its child.
PageHeap::Seen PageHeap::look_at(const void* ptr) const {
  const Span* const span = chooses_huge_pages() ? large_at(ptr) : nullptr;
  if (span == nullptr || !span->zero) return Seen::kNothing;
  const std::size_t part = span->length.bytes() / kBlockLooks;
  for (std::size_t at = part / 2; at < kBlockLooks * part; at += part) {
    const char* const look = span->start.ptr() + align_down(at, kLookBytes);
    if (!os_->can_read(look) || is_zero(look, kLookBytes)) return Seen::kUnwritten;
  }
  return Seen::kWritten;
}

void PageHeap::note_seen_locked(Seen seen, PageCount length) {
  if (seen == Seen::kUnwritten) written_ = PageCount{};
  if (seen == Seen::kWritten) written_ = std::min(written_ + length, stats_.peak);
}

// Where huge pages are wanted memory comes by whole ones. So `run`, which is in no index, gets what
// is returned of the first and of the last that it has a part of.
void PageHeap::round_to_huge_pages_locked(Span* run) {
  if (!wants_huge_pages() || run->mapping != 0) return;
  constexpr std::size_t kUnit = kHugePageBytes / kPageBytes;
  const PageCount before{run->start.value % kUnit};
  const PageCount after{-run->end().value % kUnit};
  if (may_commit_locked(before + run->length + after)) annex_locked(run, before, after);
}

// One that there is no memory to describe is forgotten.
void PageHeap::note_area_locked(PageId start, PageCount length) {
  if (!chooses_huge_pages()) return;
  for (Area* area = areas_; area != nullptr; area = area->next) {
    const bool is_before = start + length == area->start;
    if (!is_before && area->start + area->length != start) continue;
    if (is_before) area->start = start;
    area->length += length;
    return;
  }
  Area* const area = arena_->try_create<Area>(start, length, areas_);
  if (area != nullptr) areas_ = area;
}

}  // namespace minitc
