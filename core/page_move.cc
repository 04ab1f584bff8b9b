// Pages that change their addresses: those of a block that outgrows its place.
#include <algorithm>

#include "core/page_heap.h"

namespace minitc {

bool PageHeap::move_pages(Span* from, Span* to, bool& lost) {
  const bool are_whole = is_whole(from->start, from->length) && is_whole(to->start, to->length);
  bool may_move;
  {
    const LockGuard guard(lock_, *this);
    may_move = are_whole && may_move_locked();
  }
  // Both spans are the caller's.
  Move result = Move::kRefused;
  if (may_move) {
    result =
        os_->move(from->start.ptr(), from->length.bytes(), to->start.ptr(), to->length.bytes());
    if (result == Move::kDone) advise(from->start, from->length);
    if (result == Move::kRefused) advise(to->start, to->length);
  }
  {
    const LockGuard guard(lock_, *this);
    lost = !end_move_locked(from, to, result);
  }
  // Who tries again shall get no more memory than there is.
  if (lost && result == Move::kRefused) return_excess(Keep::kNothing);
  return result == Move::kDone || result == Move::kSourceLost;
}

// False if `to` is not to be used.
bool PageHeap::end_move_locked(Span* from, Span* to, Move result) {
  leaving_ -= std::min(leaving_, from->length);  // it is less in the child of a fork
  switch (result) {
    case Move::kRefused:
      if (may_commit_locked(PageCount{})) {
        note_use_locked();
        return true;
      }
      forget_large_locked(to);
      put_back_locked(to, SpanState::kFree);
      return false;
    case Move::kTargetLost:
      ++lost_targets_;
      drop_locked(to);
      return false;
    case Move::kSourceLost:
    case Move::kDone:
      break;
  }
  to->color() = from->color();
  end_mapping_locked(from);
  end_mapping_locked(to);
  begin_mapping_locked(to);
  if (result == Move::kSourceLost) {
    drop_locked(from);
  } else {
    forget_large_locked(from);
    put_back_locked(from, SpanState::kReturned);
  }
  return true;
}

// `run` is a mapping of its own from now on. Numbers come again after 65,535; should two such be
// neighbours, the kernel refuses to move what they have become.
void PageHeap::begin_mapping_locked(Span* run) {
  if (++last_mapping_ == 0) ++last_mapping_;
  run->mapping = last_mapping_;
  ++mappings_;
}

// `run` is none any more, nor part of one: what is left of that lies before it, behind it or both.
void PageHeap::end_mapping_locked(Span* run) {
  if (run->mapping == 0) return;
  --mappings_;
  for (const Span* const other :
       {map_->span_at(run->start - kOnePage), map_->span_at(run->end())}) {
    if (other != nullptr && other->mapping == run->mapping) ++mappings_;
  }
  run->mapping = 0;
}

}  // namespace minitc
