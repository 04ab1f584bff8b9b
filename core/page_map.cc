#include "core/page_map.h"

namespace minitc {

void PageMap::init(const Os& os) {
  os_ = &os;
  root_limit_ = kRootEntries;
}

PageMap::Leaf* PageMap::leaf_of(PageId page) const {
  const std::size_t i = page.value >> kLeafShift;
  if (i >= root_limit_ || root_[i] == 0) return nullptr;
  return reinterpret_cast<Leaf*>(reinterpret_cast<std::intptr_t>(this) + root_[i]);
}

Span* PageMap::span_at(PageId page) const {
  const Leaf* const leaf = leaf_of(page);
  return leaf == nullptr ? nullptr : leaf->span[index_of(page)];
}

Span* PageMap::last_span_up_to(PageId page) const {
  for (std::size_t i = page.value >> kLeafShift; i < root_limit_; --i) {  // ends by wrapping
    if (root_[i] == 0) continue;
    const PageId first{i << kLeafShift};
    const Leaf* const leaf = leaf_of(first);
    std::size_t index = i == page.value >> kLeafShift ? index_of(page) : kLeafPages - 1;
    for (; index < kLeafPages; --index) {
      if (leaf->span[index] != nullptr) return leaf->span[index];
    }
  }
  return nullptr;
}

bool PageMap::ensure(PageId start, PageCount pages) {
  const std::size_t last = (start.value + pages.value - 1) >> kLeafShift;
  if (last >= kRootEntries) return false;
  for (std::size_t i = start.value >> kLeafShift; i <= last; ++i) {
    if (root_[i] != 0) continue;
    void* const leaf = os_->reserve(sizeof(Leaf));
    if (leaf == nullptr) return false;
    root_[i] = reinterpret_cast<std::intptr_t>(leaf) - reinterpret_cast<std::intptr_t>(this);
    leaves_.fetch_add(1, std::memory_order_relaxed);
  }
  return true;
}

void PageMap::put(PageId page, unsigned cls, Span* span) {
  Leaf* const leaf = leaf_of(page);
  leaf->cls[index_of(page)] = static_cast<std::uint8_t>(cls);
  leaf->span[index_of(page)] = span;
}

void PageMap::put_ends(const Span* span, Span* value) {
  put(span->start, 0, value);
  put(span->end() - kOnePage, 0, value);
}

void PageMap::set_small(Span* span) {
  for (PageId page = span->start; page < span->end(); page = page + kOnePage) {
    put(page, span->cls, span);
  }
}

void PageMap::clear_small(Span* span) {
  for (PageId page = span->start; page < span->end(); page = page + kOnePage) {
    put(page, 0, nullptr);
  }
}

}  // namespace minitc
