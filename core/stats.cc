#include "core/stats.h"

#include "core/os.h"

namespace minitc {

void Snapshot::take(Heap& heap, Snapshot& out) {
  out = {};
  {
    const LockGuard guard(heap.threads_lock_, heap);
    for (const ThreadCache* c = heap.threads_; c != nullptr; c = c->next) {
      ++out.threads;
      for (unsigned cls = 1; cls < kNumClasses; ++cls) {
        out.classes[cls].thread_cached += c->cached_objects(cls);
      }
    }
  }
  std::size_t small_live = 0;
  for (unsigned cls = 1; cls < kNumClasses; ++cls) {
    const CentralStats central = heap.shards_.stats(cls);
    ClassStats& stats = out.classes[cls];
    stats.spans = central.spans;
    stats.central = central.free + central.stored;
    stats.refilled = central.refilled;
    stats.pinned = central.partial_free;
    stats.pinning = central.partial_spans * kSizeClasses[cls].objects - central.partial_free;
    const std::size_t away = central.objects - stats.central;
    // Objects may have come home since the caches were counted.
    if (stats.thread_cached > away) stats.thread_cached = away;
    stats.live = away - stats.thread_cached;
    small_live += stats.live * kSizeClasses[cls].bytes;
    out.thread_cached += stats.thread_cached * kSizeClasses[cls].bytes;
  }
  const PageHeapStats pages = heap.pages_.stats();
  out.large_bytes = pages.large.bytes();
  out.large_count = pages.large_count;
  out.live = small_live + out.large_bytes;
  const std::size_t in_use = pages.in_use.bytes();
  // Likewise, spans may have gone back since the objects were counted.
  out.central = in_use > out.live + out.thread_cached ? in_use - out.live - out.thread_cached : 0;
  out.page_heap_free = pages.free.bytes();
  out.returned = pages.returned.bytes();
  out.peak = pages.peak.bytes();
  out.mapped = out.live + out.thread_cached + out.central + out.page_heap_free + out.returned;
  out.metadata = heap.arena_.reserved_bytes() + heap.map_.reserved_bytes();
  out.free_runs_returned = pages.runs_returned;
  out.pools = heap.pool_totals_.pools.load(std::memory_order_relaxed);
  out.pool_bytes = heap.pool_totals_.bytes.load(std::memory_order_relaxed);
  out.large_acquired = pages.large_acquired;
  out.large_acquired_bytes = pages.large_acquired_pages.bytes();
}

void report_text(const Snapshot& s, LineSink sink, void* context) {
  const struct {
    const char* name;
    std::size_t bytes;
    const char* what;
  } rows[] = {
      {"live", s.live, "with the program"},
      {"thread-cached", s.thread_cached, "free, in thread caches"},
      {"central", s.central, "free, in spans of small objects"},
      {"page-heap free", s.page_heap_free, "free pages, committed"},
      {"returned", s.returned, "free pages without memory: given back to the OS, or never used"},
      {"mapped", s.mapped, "the sum of the above"},
      {"metadata", s.metadata, "address space of the allocator's own data"},
      {"peak", s.peak, "most that was live, thread-cached or central"},
  };
  sink(Text() << "libminitc: heap, in bytes\n", context);
  for (const auto& row : rows) {
    sink(((Text() << "libminitc: ").column(row.name, 16).column(row.bytes, 16) << "  ")
             << row.what << '\n',
         context);
  }
  sink(Text() << "libminitc: " << s.large_count << " large objects of " << s.large_bytes
              << " bytes, " << s.threads << " threads with a cache, " << s.free_runs_returned
              << " free runs returned\n",
       context);
  if (s.pools != 0) {
    sink(Text() << "libminitc: " << s.pools << " region pools of " << s.pool_bytes << " bytes\n",
         context);
  }
  sink(Text() << "libminitc:    size class     spans      live  thread-cached   central   "
                 "live bytes  pinned bytes  by objects\n",
       context);
  for (unsigned cls = 1; cls < kNumClasses; ++cls) {
    const ClassStats& c = s.classes[cls];
    if (c.spans == 0) continue;
    sink((Text() << "libminitc: ")
                 .column(kSizeClasses[cls].bytes, 13)
                 .column(c.spans, 10)
                 .column(c.live, 10)
                 .column(c.thread_cached, 15)
                 .column(c.central, 10)
                 .column(c.live * kSizeClasses[cls].bytes, 13)
                 .column(c.pinned * kSizeClasses[cls].bytes, 14)
                 .column(c.pinning, 12)
             << '\n',
         context);
  }
}

void report_json(const Snapshot& s, const char* event, const Options& options, LineSink sink,
                 void* context) {
  sink(Text() << "{\"format\":1,\"event\":\"" << event << "\",\"pid\":" << process_id()
              << ",\"time_ms\":" << wall_clock_ms() << ",\"monotonic_ms\":" << monotonic_ms()
              << ",\"options\":",
       context);
  char before = '{';
  for (const OptionRow& row : kOptionRows) {
    if (row.path != nullptr) continue;  // it might need escapes
    Text text;
    text << before << '"' << row.name << "\":";
    const std::size_t value = options.*row.field;
    row.words == nullptr ? text << value : text << '"' << row.words[value] << '"';
    sink(text, context);
    before = ',';
  }
  sink(Text() << "},", context);
  const struct {
    const char* name;
    std::size_t value;
  } rows[] = {{"live", s.live},
              {"thread_cached", s.thread_cached},
              {"central", s.central},
              {"page_heap_free", s.page_heap_free},
              {"returned", s.returned},
              {"mapped", s.mapped},
              {"metadata", s.metadata},
              {"peak", s.peak},
              {"large_bytes", s.large_bytes},
              {"large_count", s.large_count},
              {"large_acquired", s.large_acquired},
              {"large_acquired_bytes", s.large_acquired_bytes},
              {"free_runs_returned", s.free_runs_returned},
              {"threads", s.threads},
              {"pools", s.pools},
              {"pool_bytes", s.pool_bytes}};
  for (const auto& row : rows) {
    sink(Text() << '"' << row.name << "\":" << row.value << ',', context);
  }
  sink(Text() << "\"classes\":[", context);
  const char* comma = "";
  for (unsigned cls = 1; cls < kNumClasses; ++cls) {
    const ClassStats& c = s.classes[cls];
    if (c.spans == 0 && c.refilled == 0) continue;
    sink(Text() << comma << "{\"bytes\":" << kSizeClasses[cls].bytes << ",\"spans\":" << c.spans
                << ",\"live\":" << c.live << ",\"thread_cached\":" << c.thread_cached
                << ",\"central\":" << c.central << ",\"refilled\":" << c.refilled
                << ",\"pinned\":" << c.pinned << ",\"pinning\":" << c.pinning << '}',
         context);
    comma = ",";
  }
  sink(Text() << "]}", context);
}

void report_xml(const Snapshot& s, LineSink sink, void* context) {
  sink(Text() << "<malloc version=\"libminitc-1\">\n<sizes>\n", context);
  for (unsigned cls = 1; cls < kNumClasses; ++cls) {
    const ClassStats& c = s.classes[cls];
    if (c.spans == 0) continue;
    sink(Text() << "<size bytes=\"" << kSizeClasses[cls].bytes << "\" spans=\"" << c.spans
                << "\" live=\"" << c.live << "\" thread-cached=\"" << c.thread_cached
                << "\" central=\"" << c.central << "\"/>\n",
         context);
  }
  sink(Text() << "</sizes>\n<large count=\"" << s.large_count << "\" bytes=\"" << s.large_bytes
              << "\"/>\n",
       context);
  sink(Text() << "<pools count=\"" << s.pools << "\" bytes=\"" << s.pool_bytes << "\"/>\n",
       context);
  const struct {
    const char* type;
    std::size_t bytes;
  } totals[] = {{"live", s.live},         {"thread-cached", s.thread_cached},
                {"central", s.central},   {"page-heap-free", s.page_heap_free},
                {"returned", s.returned}, {"mapped", s.mapped},
                {"metadata", s.metadata}, {"peak", s.peak}};
  for (const auto& total : totals) {
    sink(Text() << "<system type=\"" << total.type << "\" size=\"" << total.bytes << "\"/>\n",
         context);
  }
  sink(Text() << "</malloc>\n", context);
}

}  // namespace minitc
