#include "core/inspection.h"

namespace minitc {

// Calls take(span, use) until it is false. What does not hold of a span, or null.
template <typename Take>
const char* Inspection::walk(Heap& heap, Take&& take) {
  PageId from;
  for (;;) {
    SpanView spans[kBatch];
    std::size_t count = kBatch;
    if (const char* const broken = heap.pages_.list_spans(from, spans, count)) return broken;
    if (count == 0) return nullptr;
    for (std::size_t i = 0; i < count; ++i) {
      SpanUse use;
      if (spans[i].state == SpanState::kSmall) {
        use = heap.shards_.at(spans[i].shard, spans[i].cls).use_of(spans[i].start);
        if (!use.is_mine) continue;  // on its way to or from its class
        if (use.violation != nullptr) return use.violation;
      }
      if (!take(spans[i], use.free_objects)) return nullptr;
    }
  }
}

int Inspection::for_each_span(Heap& heap, Visit visit, void* context) {
  int result = 0;
  walk(heap, [&](const SpanView& span, std::size_t free_objects) {
    result = visit(span, free_objects, context);
    return result == 0;
  });
  return result;
}

const char* Inspection::violation(Heap& heap) {
  const char* const broken = heap.violation();
  return broken != nullptr ? broken : walk(heap, [](const SpanView&, std::size_t) { return true; });
}

}  // namespace minitc
