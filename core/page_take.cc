// How the page heap finds a run, cuts it, joins it with others, and grows.
#include <algorithm>

#include "core/page_heap.h"

namespace minitc {
namespace {

// The best fitting run for aligned `pages`: the shortest if it lies well, as one does that had such
// pages before; else one that is long enough wherever it lies.
Span* best_fit(const RunIndex& index, PageCount pages, PageCount alignment) {
  std::size_t looks = 0;
  for (Span* run = index.best_fit(pages); run != nullptr && looks < kAlignedLooks;
       run = index.next(run), ++looks) {
    if (run->head(alignment) + pages <= run->length) return run;
  }
  return index.best_fit(pages + alignment - kOnePage);
}

}  // namespace

// Takes a run of `pages` out of the free ones, or out of a new chunk.
Span* PageHeap::take_locked(PageCount pages, PageCount alignment, Fill fill) {
  const PageCount wanted = pages + alignment - kOnePage;
  Span* run = fit_committed_locked(pages, alignment);
  if (run == nullptr && wanted == pages && may_fill_locked(pages, fill)) {
    if (Span* const span = take_neighbours_locked(pages); span != nullptr) return span;
  }
  if (run == nullptr && !may_commit_locked(pages)) return nullptr;
  if (run == nullptr && !may_fill_locked(pages, fill)) run = join_locked(wanted);
  if (run == nullptr) run = best_fit(returned_, pages, alignment);
  if (run == nullptr) {
    if (!grow_locked(wanted)) return nullptr;
    run = returned_.best_fit(wanted);
  }
  index_of(run).remove(run);

  return cut_locked(run, run->head(alignment), pages);
}

// Takes one run and cuts it into spans of class `cls`. Their number is `wanted` or less: a shorter
// run that is committed comes before a longer one that is not, and that before growth.
void PageHeap::take_small_locked(unsigned cls, std::size_t wanted, unsigned shard,
                                 SpanList& spans) {
  const auto give = [&](Span* span) MINITC_NO_THREAD_SAFETY_ANALYSIS {
    put_in_use_locked(span, SpanState::kSmall, PageCount{});
    map_->set_small(span, cls);
    spans.push(span);
  };
  // First those of the shard itself: its threads had them last.
  unsigned list = kept_for(cls, shard);
  for (unsigned looks = 0; looks < kept_lists_ / kNumClasses && spans.empty(); ++looks) {
    if (list >= kept_lists_) list = cls;
    for (Span* span; wanted != 0 && (span = take_kept_locked(list)) != nullptr; --wanted) {
      give(span);
    }
    list += kNumClasses;
  }
  if (!spans.empty()) return;
  const PageCount each{kSizeClasses[cls].pages};
  PageCount pages{each.value * wanted};
  fit_committed_locked(each, kOnePage);
  for (const RunIndex* const index : {&free_, &returned_}) {
    if (index->best_fit(pages) != nullptr) break;
    const Span* const shorter = index->best_fit(each);
    if (shorter == nullptr) continue;
    pages = PageCount{shorter->length.value / each.value * each.value};
    break;
  }
  Span* run = take_locked(pages, kOnePage, Fill::kNo);
  if (run == nullptr) run = take_locked(each, kOnePage, Fill::kNo);
  while (run != nullptr) {
    Span* const rest = run->length > each ? split_locked(run, each) : nullptr;
    if (run->length > each) return insert_locked(coalesce_locked(run));
    give(run);
    run = rest;
  }
}

// A free small span is held back for its class: the same cut again means the same places of
// objects, which are in the processor's caches.
void PageHeap::keep_locked(Span* span) {
  const unsigned cls = map_->class_at(span->start.address());
  map_->clear_small(span);
  map_->set_ends(span);
  stats_.in_use -= span->length;
  span->become(SpanState::kKept);
  const unsigned list = kept_for(cls, span->shard());
  kept_[list].push(span);
  kept_lists_ = std::max(kept_lists_, list - cls + static_cast<unsigned>(kNumClasses));
  kept_pages_ += span->length;
}

// A span of a list of those held back, out of it, or null.
Span* PageHeap::take_kept_locked(unsigned list) {
  Span* const span = kept_[list].pop();
  if (span != nullptr) kept_pages_ -= span->length;
  return span;
}

// Makes spans that are held back free runs, `pages` at least if there are so many.
void PageHeap::dissolve_locked(PageCount pages) {
  for (PageCount done; done < pages && kept_pages_ != PageCount{};) {
    kept_next_ = (kept_next_ + 1) % kept_lists_;
    for (Span* span; done < pages && (span = take_kept_locked(kept_next_)) != nullptr;) {
      done += span->length;
      span->become(SpanState::kFree);
      insert_locked(coalesce_locked(span));
    }
  }
}

// The best fitting committed run. What is held back is dissolved for it, up to twice as much as is
// wanted and no less than kMinDissolved, so that the lock is not held for long.
Span* PageHeap::fit_committed_locked(PageCount pages, PageCount alignment) {
  Span* const run = best_fit(free_, pages, alignment);
  if (run != nullptr || kept_pages_ == PageCount{}) return run;
  const PageCount wanted = pages + alignment - kOnePage;
  dissolve_locked(std::max(wanted + wanted, PageCount{kMinDissolved}));
  return best_fit(free_, pages, alignment);
}

// The run in `state` that ends or begins with `page`, or null.
Span* PageHeap::run_at_locked(PageId page, SpanState state) const {
  Span* const span = map_->span_at(page);
  return span != nullptr && span->state == state ? span : nullptr;
}

// The longest committed run, with what it lacks from returned ones beside it: less new memory than
// a returned run. Null if it is short of more than half, or if they are too short.
Span* PageHeap::join_locked(PageCount pages) {
  Span* const run = free_.longest();
  if (run == nullptr || run->mapping != 0 || run->length + run->length < pages) return nullptr;
  Span* const before = run_at_locked(run->start - kOnePage, SpanState::kReturned);
  Span* const after = run_at_locked(run->end(), SpanState::kReturned);
  const PageCount lacks = pages - run->length;
  const PageCount from_after = after != nullptr ? std::min(lacks, after->length) : PageCount{};
  const PageCount from_before = lacks - from_after;
  if (from_before != PageCount{} && (before == nullptr || before->length < from_before)) {
    return nullptr;
  }
  free_.remove(run);
  // Both at once, as the description of a rest may take a run of the index for metadata.
  if (from_before != PageCount{}) returned_.remove(before);
  if (from_after != PageCount{}) returned_.remove(after);
  const auto add = [&](Span* other, PageCount head, PageCount part)
                       MINITC_NO_THREAD_SAFETY_ANALYSIS {
                         if (Span* const cut = cut_locked(other, head, part); cut != nullptr)
                           merge_locked(run, cut);
                       };
  if (from_before != PageCount{}) add(before, before->length - from_before, from_before);
  if (from_after != PageCount{}) add(after, PageCount{}, from_after);
  miss_locked(lacks);
  insert_locked(coalesce_locked(run));
  return free_.best_fit(pages);
}

// A span of several free runs in a row, which differ in their mappings: a block that was filled
// comes back as it was freed. They are the longest and those beside it; null if that is too short.
Span* PageHeap::take_neighbours_locked(PageCount pages) {
  Span* first = free_.longest();
  if (first == nullptr) return nullptr;
  Span* last = first;
  PageCount sum = first->length;
  for (Span* run;
       sum < pages && (run = run_at_locked(first->start - kOnePage, SpanState::kFree)) != nullptr;
       first = run) {
    sum += run->length;
  }
  for (Span* run; sum < pages && (run = run_at_locked(last->end(), SpanState::kFree)) != nullptr;
       last = run) {
    sum += run->length;
  }
  if (sum < pages) return nullptr;
  // A description may take a free run for metadata.
  const auto for_each = [&](auto&& visit) {
    for (Span *run = first, *next; run != nullptr; run = next) {
      next = run == last ? nullptr : map_->span_at(run->end());
      visit(run);
    }
  };
  for_each([this](Span* run) MINITC_NO_THREAD_SAFETY_ANALYSIS { free_.remove(run); });
  Span* const span = describe_locked(first->start, pages, SpanState::kFree);
  // What is too much is less than the last has: that was needed, or is the longest.
  const PageCount surplus = sum - pages;
  Span* rest = nullptr;
  if (span != nullptr && surplus != PageCount{}) {
    rest = split_locked(last, last->length - surplus);
  }
  if (span == nullptr || (rest == nullptr && surplus != PageCount{})) {
    if (span != nullptr) arena_->destroy(span);
    for_each([this](Span* run) MINITC_NO_THREAD_SAFETY_ANALYSIS { insert_locked(run); });
    return nullptr;
  }
  if (rest != nullptr) insert_locked(rest);
  for (Span* const end : {first, last}) part_mapping_locked(end);
  for_each([&](Span* run) MINITC_NO_THREAD_SAFETY_ANALYSIS {
    map_->clear_ends(run);
    span->add_part(run);
  });
  map_->set_ends(span);
  return span;
}

bool PageHeap::grow_locked(PageCount pages) {
  PageCount chunk{std::clamp(stats_.mapped.value / 8, kMinChunkPages, kMaxChunkPages)};
  // Large requests of one length leave no rest at a chunk's end, which no later chunk would make
  // longer: the kernel puts each in front of the last.
  if (pages.bytes() > kMaxSmall) {
    chunk.value = std::max(chunk.value - chunk.value % pages.value, kMinChunkPages);
  }
  void* memory = nullptr;
  for (chunk = std::max(chunk, pages);; chunk = std::max(PageCount{chunk.value / 2}, pages)) {
    memory = os_->reserve(chunk.bytes());
    if (memory != nullptr) break;
    if (chunk == pages) return false;
  }
  const PageId start = PageId::of(memory);
  Span* run = nullptr;
  if (map_->ensure(start, chunk)) run = describe_locked(start, chunk, SpanState::kReturned);
  if (run == nullptr) {
    os_->release(memory, chunk.bytes());
    return false;
  }
  advise(start, chunk);
  note_area_locked(start, chunk);
  stats_.mapped += chunk;
  map_->set_ends(run);
  insert_locked(coalesce_locked(run));
  return true;
}

// One that there is no memory to describe is forgotten.
void PageHeap::note_area_locked(PageId start, PageCount length) {
  if (!lets_kernel_decide()) return;
  for (Area* area = areas_; area != nullptr; area = area->next) {
    const bool is_before = start + length == area->start;
    if (!is_before && area->start + area->length != start) continue;
    if (is_before) area->start = start;
    area->length += length;
    return;
  }
  Area* const area = arena_->create<Area>(start, length, areas_);
  if (area != nullptr) areas_ = area;
}

// A new Span; null if there is no memory for it.
Span* PageHeap::describe_locked(PageId start, PageCount pages, SpanState state) {
  Span* const span = arena_->create<Span>(start, pages, state);
  if (span != nullptr || !feed_arena_locked()) return span;
  return arena_->create<Span>(start, pages, state);
}

// The front of the best fitting run, so that no new Span is needed for the rest. Nothing is
// dissolved for it: who splits a run has it in no index, where a neighbour would look for it.
bool PageHeap::feed_arena_locked() {
  const PageCount pages = PageCount::of_bytes(kMetadataChunkBytes);
  Span* run = free_.best_fit(pages);
  if (run == nullptr) run = returned_.best_fit(pages);
  if (run == nullptr) return false;
  index_of(run).remove(run);
  map_->clear_ends(run);
  Span front(run->start, pages, run->state);
  front.mapping = run->mapping;
  arena_->donate(run->start.ptr(), pages.bytes());
  stats_.mapped -= pages;
  run->start = run->start + pages;
  run->length -= pages;
  if (run->length == PageCount{}) {
    arena_->destroy(run);
  } else {
    map_->set_ends(run);
    insert_locked(run);
  }
  end_mapping_locked(&front);
  return true;
}

// Cuts `run`, which is in no index, after `pages`; the rest, in the same state, or null if there is
// no memory to describe it.
Span* PageHeap::split_locked(Span* run, PageCount pages) {
  MINITC_ASSERT(pages != PageCount{} && pages < run->length);
  Span* const rest = describe_locked(run->start + pages, run->length - pages, run->state);
  if (rest == nullptr) return nullptr;
  rest->mapping = run->mapping;
  run->length = pages;
  map_->set_ends(run);
  map_->set_ends(rest);
  return rest;
}

// Cuts `pages` out of `run`, which is in no index, behind its first `head`; what is left at both
// ends goes into the index. If there is no memory to describe it, all of it does, and null.
Span* PageHeap::cut_locked(Span* run, PageCount head, PageCount pages) {
  if (head != PageCount{}) {
    Span* const rest = split_locked(run, head);
    insert_locked(run);
    if (rest == nullptr) return nullptr;
    run = rest;
  }
  if (run->length > pages) {
    Span* const rest = split_locked(run, pages);
    insert_locked(rest != nullptr ? rest : coalesce_locked(run));
    if (rest == nullptr) return nullptr;
  }
  return run;
}

// Joins `run`, which is free and in no index, with the neighbours of its state.
Span* PageHeap::coalesce_locked(Span* run) {
  Span* const neighbours[] = {map_->span_at(run->start - kOnePage), map_->span_at(run->end())};
  for (Span* const other : neighbours) {
    if (other == nullptr || !run->joins(*other)) continue;
    index_of(other).remove(other);
    merge_locked(run, other);
  }
  return run;
}

// Makes two neighbours, in no index, one in the state of `run`.
void PageHeap::merge_locked(Span* run, Span* other) {
  map_->clear_ends(other);
  map_->clear_ends(run);
  run->start = std::min(run->start, other->start);
  run->length += other->length;
  map_->set_ends(run);
  arena_->destroy(other);
}

}  // namespace minitc
