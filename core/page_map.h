// Address -> size class and address -> Span*, in two levels over 48 bits.
//
// Thread safety: read without a lock. Entries are written under the page heap's lock, for pages of
// which no object is with the program, or of which the writer has the only one; whoever has an
// object's pointer got it after the entries it reads were written. Leaves come without a lock.
//
//   address  | 16 bits root | 19 bits leaf | 13 bits page |
//               root_[i] ----> Leaf { cls[page], span[page] }
//
// The root holds offsets from this object, so that 0 is the leaf at its very beginning, which is
// all zero: an address that was never mapped reads as class 0 through the same two loads as any
// other.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "core/base.h"
#include "core/os.h"
#include "core/span.h"

namespace MINITC_HIDDEN minitc {

class PageMap {
 public:
  constexpr PageMap() = default;
  // Opens the map: until then covers() is false for every address.
  void init(const Os& os);

  // False for addresses beyond 48 bits, and for all before init().
  MINITC_HOT bool covers(std::uintptr_t address) const {
    return (address >> kRootShift) < root_limit_;
  }
  // The class of the page of `address`, which must be covered; 0: not a page of a small span.
  MINITC_HOT unsigned class_at(std::uintptr_t address) const {
    // Opaque: gcc would otherwise compute two addresses in the map and add in an order that takes
    // another register, two instructions in all.
    const PageMap* const map = opaque(this);
    // What is below the root's part is the lower half of a register: no mask.
    static_assert(kRootShift == 32);
    const std::size_t index = static_cast<std::uint32_t>(address) >> kPageShift;
    const std::ptrdiff_t offset =
        opaque(map->root_[address >> kRootShift] + static_cast<std::ptrdiff_t>(index));
    return *reinterpret_cast<const std::uint8_t*>(reinterpret_cast<std::intptr_t>(map) + offset);
  }
  // The span that `page` is registered for, or null. Others may be writing it meanwhile.
  Span* span_at(PageId page) const {
    const Leaf* const leaf = leaf_of(page);
    return leaf == nullptr ? nullptr
                           : __atomic_load_n(&leaf->span[index_of(page)], __ATOMIC_RELAXED);
  }
  // The span of the last page that has one among the `pages` that end with `page`, or null. Slow.
  Span* last_span_up_to(PageId page, PageCount pages) const;

  // The first page from `page` on that has a span, or one beyond all entries. Slow.
  PageId next_registered(PageId page) const;

  // Makes room for entries of the pages. False if the OS refuses. Not to be called under a lock.
  bool ensure(PageId start, PageCount pages);
  // All below need both once for the pages.
  void include(PageId start, PageCount pages);
  // Free and large spans are registered at their first and last page.
  void set_ends(Span* span);
  // Where they lead to it: a span that has lost its addresses may have another in its place.
  void clear_ends(const Span* span);
  // Small spans are registered at every page, with their class.
  void set_small(Span* span, unsigned cls);
  void clear_small(Span* span);

  std::size_t reserved_bytes() const {
    return leaves_.load(std::memory_order_relaxed) * sizeof(Leaf);
  }

 private:
  static constexpr std::size_t kLeafPages = std::size_t{1} << kLeafShift;
  static constexpr std::size_t kRootShift = kPageShift + kLeafShift;
  static constexpr std::size_t kRootEntries = std::size_t{1} << (kAddressBits - kRootShift);

  struct Leaf {
    std::uint8_t cls[kLeafPages];
    Span* span[kLeafPages];
  };

  Leaf* leaf_of(PageId page) const {
    const std::size_t i = page.value >> kLeafShift;
    const std::ptrdiff_t offset =
        i < root_limit_ ? __atomic_load_n(&root_[i], __ATOMIC_RELAXED) : 0;
    if (offset == 0) return nullptr;
    return reinterpret_cast<Leaf*>(reinterpret_cast<std::intptr_t>(this) + offset);
  }
  static std::size_t index_of(PageId page) { return page.value & (kLeafPages - 1); }
  void put(PageId page, unsigned cls, Span* span);

  // The first member: what offset 0 leads to.
  [[maybe_unused]] const std::uint8_t empty_leaf_[kLeafPages] = {};
  std::ptrdiff_t root_[kRootEntries] = {};  // bytes from this to the leaf
  std::size_t root_limit_ = 0;
  std::atomic<std::size_t> leaves_{0};
  std::size_t first_leaf_ = 0;  // bounds of the root's entries that matter
  std::size_t end_leaf_ = 0;
  const Os* os_ = nullptr;
};

}  // namespace minitc
