// The functions of minitc.h but for those of pools.
#include "preload/minitc.h"

#include <string.h>

#include <algorithm>

#include "core/heap.h"
#include "core/inspection.h"
#include "core/options.h"
#include "core/stats.h"
#include "core/stats_file.h"
#include "preload/init.h"

using namespace minitc;  // NOLINT(google-build-using-namespace): the definitions below are global

const char* minitc_version(void) { return MINITC_VERSION; }

long long minitc_option(const char* name) {
  heap_is_usable();  // the options are read at the start
  for (const OptionRow& row : kOptionRows) {
    if (name == nullptr || strcmp(name, row.name) != 0) continue;
    if (row.path != nullptr) return g_options.*row.path != nullptr ? 1 : 0;
    return static_cast<long long>(g_options.*row.field);
  }
  return -1;
}

int minitc_stats(struct minitc_stats* out, std::size_t size) {
  if (out == nullptr || !heap_is_usable()) return -1;
  Snapshot s;
  Snapshot::take(g_heap, s);
  const struct minitc_stats known = {.live = s.live,
                                     .thread_cached = s.thread_cached,
                                     .central = s.central,
                                     .page_heap_free = s.page_heap_free,
                                     .returned = s.returned,
                                     .mapped = s.mapped,
                                     .metadata = s.metadata,
                                     .peak = s.peak,
                                     .large_bytes = s.large_bytes,
                                     .large_count = s.large_count,
                                     .threads = s.threads,
                                     .pools = s.pools,
                                     .pool_bytes = s.pool_bytes};
  memset(out, 0, size);
  memcpy(out, &known, std::min(size, sizeof(known)));
  return 0;
}

namespace {

struct Output {
  char* buffer;
  std::size_t size;
  std::size_t length;  // of what would be there, were there room
};

}  // namespace

static_assert(kJsonBytes < MINITC_STATS_JSON_BYTES);

std::size_t minitc_stats_json(char* buffer, std::size_t size) {
  if (!heap_is_usable()) return 0;
  Snapshot snapshot;
  Snapshot::take(g_heap, snapshot);
  Output output = {buffer, size, 0};
  report_json(
      snapshot, "call", g_options,
      [](const Text& part, void* context) {
        Output& out = *static_cast<Output*>(context);
        const std::size_t room = out.size > out.length ? out.size - out.length : 0;
        if (room != 0) memcpy(out.buffer + out.length, part.data(), std::min(room, part.size()));
        out.length += part.size();
      },
      &output);
  if (size != 0) buffer[std::min(output.length, size - 1)] = '\0';
  return output.length;
}

int minitc_stats_write(void) {
  return heap_is_usable() && g_stats_file.write(g_heap, "call") ? 1 : 0;
}

std::size_t minitc_release(void) { return heap_is_usable() ? g_heap.trim() : 0; }

void minitc_thread_idle(void) {
  if (heap_is_usable()) g_heap.flush_cache();
}

namespace {

struct Visitor {
  int (*visit)(const struct minitc_span* span, void* argument);
  void* argument;
};

int visit_span(const SpanView& span, std::size_t free_objects, void* context) {
  struct minitc_span seen = {.start = span.start.ptr(),
                             .bytes = span.length.bytes(),
                             .state = MINITC_SPAN_FREE,
                             .object_bytes = 0,
                             .objects = 0,
                             .free_objects = free_objects};
  switch (span.state) {
    case SpanState::kSmall:
      seen.state = MINITC_SPAN_SMALL;
      seen.object_bytes = kSizeClasses[span.cls].bytes;
      seen.objects = kSizeClasses[span.cls].objects;
      break;
    case SpanState::kLarge:
      seen.state = MINITC_SPAN_LARGE;
      seen.object_bytes = seen.bytes - span.color;
      seen.objects = 1;
      break;
    case SpanState::kReturned:
      seen.state = MINITC_SPAN_RETURNED;
      break;
    case SpanState::kFree:
    case SpanState::kKept:
    case SpanState::kReturning:
      break;
  }
  const Visitor& visitor = *static_cast<Visitor*>(context);
  return visitor.visit(&seen, visitor.argument);
}

}  // namespace

int minitc_for_each_span(int (*visit)(const struct minitc_span* span, void* argument),
                         void* argument) {
  if (visit == nullptr || !heap_is_usable()) return -1;
  Visitor visitor = {visit, argument};
  return Inspection::for_each_span(g_heap, visit_span, &visitor);
}

const char* minitc_heap_check(void) {
  return heap_is_usable() ? Inspection::violation(g_heap) : nullptr;
}
