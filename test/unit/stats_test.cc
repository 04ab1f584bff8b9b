#include "core/stats.h"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <vector>

#include "test/unit/support.h"

TEST_THREAD_SANITIZER_OPTIONS()

namespace minitc {
namespace {

using test::FakeOs;
using test::TestHeap;

std::string printed(const Snapshot& snapshot, void (*report)(const Snapshot&, LineSink, void*)) {
  std::string all;
  report(
      snapshot,
      [](const Text& line, void* context) {
        static_cast<std::string*>(context)->append(line.data(), line.size());
      },
      &all);
  return all;
}

bool adds_up(const Snapshot& s) {
  std::size_t live = s.large_bytes;
  std::size_t cached = 0;
  std::size_t central = 0;
  for (unsigned cls = 1; cls < kNumClasses; ++cls) {
    const ClassStats& c = s.classes[cls];
    if (c.live + c.thread_cached + c.central != c.spans * kSizeClasses[cls].objects) return false;
    live += c.live * kSizeClasses[cls].bytes;
    cached += c.thread_cached * kSizeClasses[cls].bytes;
    const std::size_t span_bytes = c.spans * kSizeClasses[cls].pages * kPageBytes;
    central += span_bytes - (c.live + c.thread_cached) * kSizeClasses[cls].bytes;
  }
  return s.live == live && s.thread_cached == cached && s.central == central &&
         s.mapped == s.live + s.thread_cached + s.central + s.page_heap_free + s.returned;
}

TEST_CASE("stats: what left the central tier is counted by class") {
  const FakeOs fake;
  Options options;
  options.check_free = 1;  // no thread caches: each call is one of the central tier
  const TestHeap heap(fake.os(), options);
  std::vector<void*> objects;
  for (int i = 0; i < 1000; ++i) objects.push_back(heap->allocate(100));
  for (int i = 0; i < 600; ++i) heap->deallocate(objects[static_cast<std::size_t>(i)]);
  void* const large = heap->allocate(1 << 20);
  heap->deallocate(large);
  Snapshot s;
  Snapshot::take(*heap, s);
  for (unsigned cls = 1; cls < kNumClasses; ++cls) {
    const bool used = cls == class_of(100);
    CHECK(s.classes[cls].refilled == (used ? 1000 : 0));
  }
  CHECK(s.large_count == 0);
  CHECK(s.large_acquired == 1);
  CHECK(s.large_acquired_bytes == (1 << 20) + kPageBytes);  // it begins behind the first line
  CHECK(s.classes[class_of(100)].live == 400);
}

TEST_CASE("stats: free objects are pinned by the others of their span") {
  const FakeOs fake;
  Options options;
  options.check_free = 1;
  const TestHeap heap(fake.os(), options);
  const unsigned cls = class_of(1024);
  const std::size_t per_span = kSizeClasses[cls].objects;
  std::vector<void*> objects;
  for (std::size_t i = 0; i < 3 * per_span; ++i) objects.push_back(heap->allocate(1024));
  const auto now = [&] {
    auto s = std::make_unique<Snapshot>();
    Snapshot::take(*heap, *s);
    return s->classes[cls];
  };
  CHECK(now().pinned == 0);
  CHECK(now().pinning == 0);
  // All of the first span but one object, two of the second, none of the third.
  for (std::size_t i = 1; i < per_span + 2; ++i) heap->deallocate(objects[i]);
  heap->trim();  // out of the store
  CHECK(now().pinned == per_span + 1);
  CHECK(now().pinning == 1 + per_span - 2);
  heap->deallocate(objects[0]);
  heap->trim();
  CHECK(now().pinned == 2);
  CHECK(now().pinning == per_span - 2);
}

TEST_CASE("stats: an unused heap has nothing") {
  const FakeOs fake;
  const TestHeap heap(fake.os());
  Snapshot s;
  Snapshot::take(*heap, s);
  CHECK(s.live == 0);
  CHECK(s.mapped == 0);
  CHECK(s.metadata == 0);
  CHECK(s.threads == 0);
  CHECK(adds_up(s));
}

TEST_CASE("stats: every object is counted once, where it is, and the sums are exact") {
  const FakeOs fake;
  const TestHeap heap(fake.os());
  std::vector<void*> small;
  for (int i = 0; i < 100; ++i) small.push_back(heap->allocate(40));
  void* const large = heap->allocate(300 * 1024);
  Snapshot s;
  Snapshot::take(*heap, s);
  const unsigned cls = class_of(40);
  CHECK(s.classes[cls].live == 100);
  CHECK(s.classes[cls].spans == 1);
  CHECK(s.classes[cls].thread_cached > 0);
  CHECK(s.large_count == 1);
  CHECK(s.large_bytes == align_up(300 * 1024, kPageBytes));
  CHECK(s.live == 100 * 48 + s.large_bytes);
  CHECK(s.threads == 1);
  CHECK(s.mapped + s.metadata == fake.mapped_bytes());
  CHECK(s.peak == s.live + s.thread_cached + s.central);
  CHECK(adds_up(s));

  const std::size_t cached = s.classes[cls].thread_cached;
  for (int i = 0; i < 10; ++i) heap->deallocate(small[static_cast<std::size_t>(i)]);
  heap->deallocate(large);
  const std::size_t peak = s.peak;
  Snapshot::take(*heap, s);
  CHECK(s.classes[cls].live == 90);
  CHECK(s.classes[cls].thread_cached == cached + 10);
  CHECK(s.large_count == 0);
  CHECK(s.live == 90 * 48);
  CHECK(s.page_heap_free == align_up(300 * 1024, kPageBytes));
  CHECK(s.free_runs_returned == 0);
  CHECK(s.peak == peak);
  CHECK(adds_up(s));

  heap->trim();
  Snapshot::take(*heap, s);
  CHECK(s.live == 90 * 48);
  CHECK(s.thread_cached == 0);
  CHECK(s.page_heap_free == 0);
  CHECK(s.free_runs_returned == 1);
  CHECK(s.peak == peak);
  CHECK(adds_up(s));
}

TEST_CASE("stats: the sums are exact after any mixture of operations") {
  const FakeOs fake;
  Options options;
  options.free_bound = 1024 * 1024;
  const TestHeap heap(fake.os(), options);
  test::Random random(5);
  std::vector<std::pair<void*, std::size_t>> objects;
  std::size_t live = 0;
  std::size_t wrong = 0;
  const auto snapshot = std::make_unique<Snapshot>();
  for (int i = 0; i < 4000; ++i) {
    if (objects.size() < 300 || random.below(2) == 0) {
      void* const object = heap->allocate(random.below(std::size_t{1} << random.below(20)));
      objects.emplace_back(object, test::counted_bytes(object, heap->usable_size(object)));
      live += objects.back().second;
    } else {
      std::swap(objects[random.below(objects.size())], objects.back());
      live -= objects.back().second;
      heap->deallocate(objects.back().first);
      objects.pop_back();
    }
    if (i % 20 != 0) continue;
    Snapshot::take(*heap, *snapshot);
    if (!adds_up(*snapshot) || snapshot->live != live || snapshot->peak < live) ++wrong;
    if (snapshot->mapped + snapshot->metadata != fake.mapped_bytes()) ++wrong;
  }
  CHECK(wrong == 0);
}

// Each number different, so that none can stand for another.
std::unique_ptr<Snapshot> made_up() {
  auto s = std::make_unique<Snapshot>();
  s->live = 1234567;
  s->thread_cached = 23456;
  s->central = 34567;
  s->page_heap_free = 45678;
  s->returned = 567890;
  s->metadata = 67891;
  s->peak = 7890123;
  s->mapped = 1906158;
  s->large_bytes = 890123;
  s->large_count = 21;
  s->large_acquired = 22;
  s->large_acquired_bytes = 990123;
  s->free_runs_returned = 31;
  s->threads = 4;
  s->pools = 5;
  s->pool_bytes = 678901;
  s->classes[class_of(8)] = {.spans = 1,
                             .live = 2,
                             .thread_cached = 3,
                             .central = 4,
                             .refilled = 5,
                             .pinned = 6,
                             .pinning = 7};
  s->classes[class_of(48)] = {.spans = 50,
                              .live = 601,
                              .thread_cached = 70,
                              .central = 80,
                              .refilled = 900,
                              .pinned = 60,
                              .pinning = 610};
  s->classes[kNumClasses - 1] = {.spans = 9,
                                 .live = 0,
                                 .thread_cached = 0,
                                 .central = 9,
                                 .refilled = 9,
                                 .pinned = 0,
                                 .pinning = 0};
  return s;
}

TEST_CASE("stats: the report for people reads like this") {
  CHECK(
      printed(*made_up(), report_text) ==
      "libminitc: heap, in bytes\n"
      "libminitc: live                     1234567  with the program\n"
      "libminitc: thread-cached              23456  free, in thread caches\n"
      "libminitc: central                    34567  free, in spans of small objects\n"
      "libminitc: page-heap free             45678  free pages, committed\n"
      "libminitc: returned                  567890  free pages without memory: given back to the "
      "OS, or never used\n"
      "libminitc: mapped                   1906158  the sum of the above\n"
      "libminitc: metadata                   67891  address space of the allocator's own data\n"
      "libminitc: peak                     7890123  most that was live, thread-cached or central\n"
      "libminitc: 21 large objects of 890123 bytes, 4 threads with a cache, 31 free runs "
      "returned\n"
      "libminitc: 5 region pools of 678901 bytes\n"
      "libminitc:    size class     spans      live  thread-cached   central   live bytes  pinned "
      "bytes  by objects\n"
      "libminitc:             8         1         2              3         4           16          "
      "  48"
      "           7\n"
      "libminitc:            48        50       601             70        80        28848          "
      "2880"
      "         610\n"
      "libminitc:        131072         9         0              0         9            0          "
      "   0"
      "           0\n");
}

TEST_CASE("stats: where there are no region pools the report says nothing of them") {
  const auto s = made_up();
  s->pools = 0;
  CHECK(printed(*s, report_text).find("pools") == std::string::npos);
}

TEST_CASE("stats: the report for programs reads like this") {
  CHECK(printed(*made_up(), report_xml) ==
        "<malloc version=\"libminitc-1\">\n"
        "<sizes>\n"
        "<size bytes=\"8\" spans=\"1\" live=\"2\" thread-cached=\"3\" central=\"4\"/>\n"
        "<size bytes=\"48\" spans=\"50\" live=\"601\" thread-cached=\"70\" central=\"80\"/>\n"
        "<size bytes=\"131072\" spans=\"9\" live=\"0\" thread-cached=\"0\" central=\"9\"/>\n"
        "</sizes>\n"
        "<large count=\"21\" bytes=\"890123\"/>\n"
        "<pools count=\"5\" bytes=\"678901\"/>\n"
        "<system type=\"live\" size=\"1234567\"/>\n"
        "<system type=\"thread-cached\" size=\"23456\"/>\n"
        "<system type=\"central\" size=\"34567\"/>\n"
        "<system type=\"page-heap-free\" size=\"45678\"/>\n"
        "<system type=\"returned\" size=\"567890\"/>\n"
        "<system type=\"mapped\" size=\"1906158\"/>\n"
        "<system type=\"metadata\" size=\"67891\"/>\n"
        "<system type=\"peak\" size=\"7890123\"/>\n"
        "</malloc>\n");
}

std::string json_of(const Snapshot& snapshot) {
  std::string all;
  report_json(
      snapshot, "test", Options{},
      [](const Text& part, void* context) {
        static_cast<std::string*>(context)->append(part.data(), part.size());
      },
      &all);
  return all;
}

TEST_CASE("stats: the line of JSON reads like this") {
  const std::string line = json_of(*made_up());
  CHECK(line.rfind("{\"format\":1,\"event\":\"test\",\"pid\":" + std::to_string(getpid()) +
                       ",\"time_ms\":",
                   0) == 0);
  CHECK(line.find(",\"options\":{\"MINITC_STATS\":0,") <
        line.find(",\"MINITC_ON_BAD_FREE\":\"abort\","));
  CHECK(line.find("STATS_FILE") == std::string::npos);
  CHECK(line.substr(line.find("\"live\"")) ==
        "\"live\":1234567,\"thread_cached\":23456,\"central\":34567,\"page_heap_free\":45678,"
        "\"returned\":567890,\"mapped\":1906158,\"metadata\":67891,\"peak\":7890123,"
        "\"large_bytes\":890123,\"large_count\":21,\"large_acquired\":22,"
        "\"large_acquired_bytes\":990123,\"free_runs_returned\":31,\"threads\":4,\"pools\":5,"
        "\"pool_bytes\":678901,\"classes\":["
        "{\"bytes\":8,\"spans\":1,\"live\":2,\"thread_cached\":3,\"central\":4,\"refilled\":5,"
        "\"pinned\":6,\"pinning\":7},"
        "{\"bytes\":48,\"spans\":50,\"live\":601,\"thread_cached\":70,\"central\":80,"
        "\"refilled\":900,\"pinned\":60,\"pinning\":610},"
        "{\"bytes\":131072,\"spans\":9,\"live\":0,\"thread_cached\":0,\"central\":9,"
        "\"refilled\":9,\"pinned\":0,\"pinning\":0}]}");
  Snapshot gone = {};
  gone.classes[1].refilled = 3;  // a class that was used once
  CHECK(json_of(gone).find("\"refilled\":3,") != std::string::npos);
}

// Tags open and close in order, names and attributes are as XML wants them.
bool is_well_formed(const std::string& xml) {
  std::vector<std::string> open;
  std::size_t at = 0;
  const auto name_at = [&] {
    const std::size_t start = at;
    while (at < xml.size() && (isalnum(xml[at]) != 0 || xml[at] == '-')) ++at;
    return xml.substr(start, at - start);
  };
  bool had_root = false;
  while (at < xml.size()) {
    if (isspace(xml[at]) != 0) {
      ++at;
      continue;
    }
    if (xml[at++] != '<' || at == xml.size()) return false;
    const bool closes = xml[at] == '/';
    if (closes) ++at;
    const std::string name = name_at();
    if (name.empty() || (open.empty() && had_root)) return false;
    had_root = true;
    while (at < xml.size() && xml[at] == ' ') {
      ++at;
      if (name_at().empty() || xml.compare(at, 2, "=\"") != 0) return false;
      const std::size_t end = xml.find_first_of("\"<&", at + 2);
      if (end == std::string::npos || xml[end] != '"') return false;
      at = end + 1;
    }
    const bool is_empty = xml.compare(at, 1, "/") == 0;
    if (is_empty) ++at;
    if (xml.compare(at++, 1, ">") != 0) return false;
    if (closes) {
      if (is_empty || open.empty() || open.back() != name) return false;
      open.pop_back();
    } else if (!is_empty) {
      open.push_back(name);
    }
  }
  return open.empty() && had_root;
}

TEST_CASE("stats: the XML is well-formed whatever the numbers are") {
  REQUIRE(is_well_formed("<a><b c=\"d\"/></a>"));
  REQUIRE_FALSE(is_well_formed("<a><b c=\"d\"/>"));
  REQUIRE_FALSE(is_well_formed("<a b=c></a>"));
  REQUIRE_FALSE(is_well_formed("<a></b>"));
  CHECK(is_well_formed(printed(*made_up(), report_xml)));
  CHECK(is_well_formed(printed(*std::make_unique<Snapshot>(), report_xml)));

  // All classes, and the longest numbers there are: no line may be cut off.
  auto full = std::make_unique<Snapshot>();
  for (std::size_t* const field :
       {&full->live, &full->thread_cached, &full->central, &full->page_heap_free, &full->returned,
        &full->metadata, &full->peak, &full->mapped, &full->large_bytes, &full->large_count,
        &full->free_runs_returned, &full->threads, &full->large_acquired,
        &full->large_acquired_bytes, &full->pools, &full->pool_bytes}) {
    *field = SIZE_MAX;
  }
  for (ClassStats& c : full->classes)
    c = {SIZE_MAX, SIZE_MAX, SIZE_MAX, SIZE_MAX, SIZE_MAX, SIZE_MAX, SIZE_MAX};
  CHECK(is_well_formed(printed(*full, report_xml)));
  CHECK(json_of(*full).size() <= kJsonBytes);
  const std::string text = printed(*full, report_text);
  for (std::size_t start = 0; start < text.size(); start = text.find('\n', start) + 1) {
    REQUIRE(text.compare(start, 11, "libminitc: ") == 0);
  }
  CHECK(text.back() == '\n');
  CHECK(std::count(text.begin(), text.end(), '\n') == 12 + static_cast<int>(kNumClasses) - 1);
}

TEST_CASE("stats: a report is made of whole lines") {
  static std::size_t broken;
  broken = 0;
  const LineSink sink = [](const Text& line, void*) {
    if (line.size() == 0 || line.data()[line.size() - 1] != '\n') ++broken;
  };
  report_text(*made_up(), sink, nullptr);
  report_xml(*made_up(), sink, nullptr);
  CHECK(broken == 0);
}

}  // namespace
}  // namespace minitc
