#include "core/page_map.h"

#include <algorithm>

namespace minitc {

void PageMap::init(const Os& os) {
  os_ = &os;
  root_limit_ = kRootEntries;
  first_leaf_ = kRootEntries;
}

Span* PageMap::last_span_up_to(PageId page, PageCount pages) const {
  if (page.value >> kLeafShift >= root_limit_) return nullptr;
  for (std::size_t back = 0; back < pages.value && back <= page.value;) {
    const PageId at{page.value - back};
    if (Span* const span = span_at(at); span != nullptr) return span;
    back += leaf_of(at) != nullptr ? 1 : index_of(at) + 1;
  }
  return nullptr;
}

PageId PageMap::next_registered(PageId page) const {
  page = std::max(page, PageId{first_leaf_ << kLeafShift});
  const PageId end{end_leaf_ << kLeafShift};
  while (page < end) {
    if (span_at(page) != nullptr) return page;
    page = page + PageCount{leaf_of(page) != nullptr ? 1 : kLeafPages - index_of(page)};
  }
  return end;
}

bool PageMap::ensure(PageId start, PageCount pages) {
  const std::size_t last = (start.value + pages.value - 1) >> kLeafShift;
  if (last >= kRootEntries) return false;
  for (PageId page = start; page.value >> kLeafShift <= last; page = page + PageCount{kLeafPages}) {
    if (leaf_of(page) != nullptr) continue;
    void* const leaf = os_->reserve(sizeof(Leaf));
    if (leaf == nullptr) return false;
    // Of two threads that need it one gives its own back.
    std::ptrdiff_t none = 0;
    if (__atomic_compare_exchange_n(
            &root_[page.value >> kLeafShift], &none,
            reinterpret_cast<std::intptr_t>(leaf) - reinterpret_cast<std::intptr_t>(this),
            /*weak=*/false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
      leaves_.fetch_add(1, std::memory_order_relaxed);
    } else {
      os_->release(leaf, sizeof(Leaf));
    }
  }
  return true;
}

void PageMap::include(PageId start, PageCount pages) {
  first_leaf_ = std::min(first_leaf_, start.value >> kLeafShift);
  end_leaf_ = std::max(end_leaf_, ((start.value + pages.value - 1) >> kLeafShift) + 1);
}

void PageMap::put(PageId page, unsigned cls, Span* span) {
  Leaf* const leaf = leaf_of(page);
  leaf->cls[index_of(page)] = static_cast<std::uint8_t>(cls);
  __atomic_store_n(&leaf->span[index_of(page)], span, __ATOMIC_RELAXED);
}

void PageMap::set_ends(Span* span) {
  put(span->start, 0, span);
  put(span->end() - kOnePage, 0, span);
}

void PageMap::clear_ends(const Span* span) {
  for (const PageId page : {span->start, span->end() - kOnePage}) {
    if (span_at(page) == span) put(page, 0, nullptr);
  }
}

void PageMap::set_small(Span* span, unsigned cls) {
  for (PageId page = span->start; page < span->end(); page = page + kOnePage) {
    put(page, cls, span);
  }
}

void PageMap::clear_small(Span* span) {
  for (PageId page = span->start; page < span->end(); page = page + kOnePage) {
    put(page, 0, nullptr);
  }
}

}  // namespace minitc
