// A span: a run of pages, free or in use, and what is known of it. All of it lives in the metadata
// arena, none in the pages.
//
// Thread safety: a free span belongs to the page heap's lock. A small span's lists and counts
// belong to the lock of its class. `start`, `length`, `state`, owner() and `bits` of a span in use
// may be read by whoever holds an object of it: they were written before that object was handed
// out.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "core/base.h"
#include "core/size_class.h"

namespace MINITC_HIDDEN minitc {

enum class SpanState : std::uint8_t {
  kFree,       // in the page heap, committed, contents unknown
  kKept,       // as kFree, but held back for spans of the class that it was one of
  kReturning,  // taken out of the page heap while the OS takes its memory back
  kReturned,   // in the page heap, not committed, reads as zeros
  kSmall,      // carved into objects of one class
  kLarge,      // one object
};

// The state machine of docs/design.md.
constexpr bool legal(SpanState from, SpanState to) {
  using enum SpanState;
  switch (from) {
    case kFree:
      return to == kReturning || to == kSmall || to == kLarge;
    case kKept:
      return to == kSmall || to == kFree;
    case kReturning:
      return to == kReturned || to == kFree;
    case kReturned:  // kFree: got memory with a neighbour
      return to == kSmall || to == kLarge || to == kFree;
    case kSmall:
      return to == kKept;
    case kLarge:  // kReturned: its pages were moved away
      return to == kFree || to == kReturned;
  }
  return false;
}
static_assert(!legal(SpanState::kSmall, SpanState::kLarge));
static_assert(!legal(SpanState::kSmall, SpanState::kReturned));
static_assert(!legal(SpanState::kFree, SpanState::kReturned));

// What is behind the free objects of a small span.
enum class Backing : std::uint8_t {
  kResident = 0,  // memory, wherever the program has ever written
  kReturned = 1,  // no whole page, but for what the OS did not want
  kReturning,     // a thread gives whole pages of them back to the OS
};

// Of the count of rounds, what a span notes.
inline constexpr unsigned kRoundBits = 5;
inline constexpr std::uint8_t kMaxRound = (1U << kRoundBits) - 1;
static_assert(kQuietRounds < kMaxRound / 4);

struct Span {
  Span(PageId first, PageCount pages, SpanState initial)
      : start(first), length(pages), state(initial) {}

  PageId start;
  PageCount length;
  // In one list or tree at a time: a bin or the tree of the page heap, a list of the central cache.
  Span* prev = nullptr;
  Span* next = nullptr;
  SpanState state;
  std::uint8_t listed : kRoundBits = 0;  // small or free, in a list or an index: round() then
  bool zero : 1 = false;  // in use: its pages were all zero when it was acquired; small: and what
                          // is free of them still is (class lock)
  Backing backing : 2 = Backing::kResident;  // small
  mutable std::uint16_t owned_by = 0;        // small: see owner()
  std::uint16_t mapping = 0;     // not 0: its pages are moved ones; which mapping of the kernel's
  std::uint16_t free_count = 0;  // small: objects in the span, that is bits set in `free`

  // Small: a bit per object. `free`: the object is in the span and may be carved (class lock).
  // `home`: the object is in the central tier, in the span or in its class's store (atomic).
  // One word of each is kept here; more are a block of the arena, `free` first.
  std::uint64_t* bits = nullptr;
  std::uint64_t own_bits[2] = {};
  // kReturning: this_holder() of the thread that returns it.
  std::uint64_t& returned_by() { return own_bits[0]; }
  // kLarge: the bytes from the start to the object.
  std::uint64_t& color() { return own_bits[1]; }
  char* object() const { return start.ptr() + own_bits[1]; }
  std::size_t object_bytes() const { return length.bytes() - own_bits[1]; }

  PageId end() const { return start + length; }
  // How many of its pages lie before the first that is aligned.
  PageCount head(PageCount alignment) const {
    return PageCount{-start.value & (alignment.value - 1)};
  }
  // Whether it and its neighbour `other` may become one run.
  bool joins(const Span& other) const { return state == other.state && mapping == other.mapping; }
  // It is put into a list or an index, in a round of PageHeap::round().
  void list_in(std::uint8_t round) { listed = round & kMaxRound; }
  // Whether it has been listed for kQuietRounds, less a part of one. The count of rounds wraps: now
  // and then what has lain for long does not look so.
  bool is_quiet(std::uint8_t round) const { return ((round - listed) & kMaxRound) >= kQuietRounds; }
  // The class and the shard of a central cache as one number. Of a span that has no bitmaps yet, or
  // none any more, the class is 0: it is no central cache's. Written under the class lock; may be
  // read at any time, by who lists spans or has a bad pointer.
  static std::uint16_t owner_of(unsigned cls, unsigned shard) {
    return static_cast<std::uint16_t>(shard << 8 | cls);
  }
  std::uint16_t owner() const {
    return std::atomic_ref<std::uint16_t>(owned_by).load(std::memory_order_relaxed);
  }
  void set_owner(std::uint16_t owner) {
    std::atomic_ref<std::uint16_t>(owned_by).store(owner, std::memory_order_relaxed);
  }
  unsigned cls() const { return owner() & 0xFF; }
  unsigned shard() const { return owner() >> 8; }
  bool is_free() const { return state == SpanState::kFree || state == SpanState::kReturned; }
  void become(SpanState to) {
    MINITC_ASSERT(legal(state, to));  // I2
    state = to;
  }

  const SizeClass& size_class() const { return kSizeClasses[cls()]; }
  std::size_t words() const { return size_class().words(); }
  std::uint64_t& free_word(std::size_t index) { return bits[index / 64]; }
  std::atomic_ref<std::uint64_t> home_word(std::size_t index) const {
    return std::atomic_ref<std::uint64_t>(bits[words() + index / 64]);
  }
  static std::uint64_t mask_of(std::size_t index) { return std::uint64_t{1} << (index % 64); }
};
static_assert(sizeof(Span) == 64, "one cache line");

// A doubly linked list of spans; `prev` of the first is the last. Whoever owns the list guards it.
class SpanList {
 public:
  bool empty() const { return head_ == nullptr; }
  Span* front() const { return head_; }
  Span* back() const { return head_ == nullptr ? nullptr : head_->prev; }
  void push(Span* span) {
    span->prev = head_ == nullptr ? span : head_->prev;
    span->next = head_;
    if (head_ != nullptr) head_->prev = span;
    head_ = span;
  }
  // The first, taken out, or null.
  Span* pop() {
    Span* const first = head_;
    if (first != nullptr) remove(first);
    return first;
  }
  void remove(Span* span) {
    Span* const next = span->next;
    if (span == head_) {
      head_ = next;
    } else {
      span->prev->next = next;
    }
    if (next != nullptr) {
      next->prev = span->prev;
    } else if (head_ != nullptr) {
      head_->prev = span->prev;
    }
    span->prev = span->next = nullptr;
  }

 private:
  Span* head_ = nullptr;
};

}  // namespace minitc
