#include "core/central_cache.h"

#include <algorithm>
#include <bit>
#include <catch2/catch.hpp>
#include <chrono>
#include <iterator>
#include <set>
#include <thread>
#include <vector>

#include "test/unit/support.h"

namespace minitc {
namespace {

using test::all_bytes_are;
using test::check_fails;
using test::death;
using test::ending_of;
using test::hex;
using test::OsCall;
using test::Tiers;

using Objects = std::vector<void*>;

// One class and the ways to use it that the tests need.
struct OneClass {
  explicit OneClass(unsigned of_class, bool ignores_bad_pointers = false)
      : t(kBudget, 4096, ignores_bad_pointers), cls(of_class), central(t.central[of_class]) {}

  const SizeClass& size() const { return kSizeClasses[cls]; }
  Objects refill(std::size_t count) {
    Objects out(count);
    out.resize(t.refill(cls, out.data(), count));
    return out;
  }
  void spill(Objects objects, Caller caller = Caller::kFree) {
    for (std::size_t done = 0; done < objects.size(); done += size().batch) {
      const std::size_t n = std::min<std::size_t>(size().batch, objects.size() - done);
      central.spill(objects.data() + done, n, {caller});
    }
  }
  // Into the spans, past the store.
  void send_home(const Objects& objects) {
    spill(objects);
    central.trim();
  }
  Span* span_of(const void* object) const { return t.map->span_at(PageId::of(object)); }
  // The bits of the bitmap `free` that are set in the span of `object`.
  std::size_t free_bits(const void* object) const {
    Span* const span = span_of(object);
    std::size_t bits = 0;
    for (std::size_t i = 0; i < span->words(); ++i) {
      bits += static_cast<std::size_t>(std::popcount(span->bits[i]));
    }
    return bits;
  }
  std::size_t home_bits(const void* object) const {
    Span* const span = span_of(object);
    std::size_t bits = 0;
    for (std::size_t i = 0; i < span->words(); ++i) {
      bits += static_cast<std::size_t>(std::popcount(span->bits[span->words() + i]));
    }
    return bits;
  }

  static constexpr std::ptrdiff_t kBudget = 1 << 20;
  Tiers t;
  unsigned cls;
  CentralCache& central;
};

constexpr unsigned kClass48 = class_of(48);  // many objects in a page
constexpr unsigned kClass8 = class_of(8);    // the most
constexpr unsigned kClass512 = class_of(kMaxStoredBytes);
constexpr unsigned kClass1024 = class_of(1024);      // one bitmap word
constexpr unsigned kClassLargest = kNumClasses - 1;  // one object in a span
static_assert(kSizeClasses[kClass1024].objects <= 64 && kSizeClasses[kClass48].objects > 64);
static_assert(kSizeClasses[kClassLargest].objects == 1);

// --- Refill and spill ---------------------------------------------------------------------------

TEST_CASE("central cache: a refill of each class gives distinct whole objects", "[I7][I8]") {
  for (unsigned cls = 1; cls < kNumClasses; ++cls) {
    CAPTURE(cls);
    OneClass c(cls);
    const std::size_t count = std::min<std::size_t>(c.size().batch, 3 * c.size().objects);
    const Objects objects = c.refill(count);
    REQUIRE(objects.size() == count);
    CHECK(std::set<void*>(objects.begin(), objects.end()).size() == count);
    for (void* const object : objects) {
      const Span* const span = c.span_of(object);
      REQUIRE(span != nullptr);
      const auto offset = static_cast<std::size_t>(static_cast<char*>(object) - span->start.ptr());
      REQUIRE(offset % c.size().bytes == 0);
      REQUIRE(offset / c.size().bytes < c.size().objects);
      memset(object, 1, c.size().bytes);
    }
    const CentralStats s = c.central.stats();
    CHECK(s.objects == s.spans * c.size().objects);
    CHECK(s.free == s.objects - count);
    CHECK(s.stored == 0);
    c.t.check();
    c.send_home(objects);
    CHECK(c.central.stats().spans == 0);
    CHECK(c.t.heap.stats().in_use == PageCount{});
    c.t.check();
  }
}

TEST_CASE("central cache: what is handed out first lies lowest", "[I7]") {
  OneClass c(kClass48);
  const Objects objects = c.refill(100);
  // A thread's stack hands out the last first.
  CHECK(std::is_sorted(objects.rbegin(), objects.rend()));
  CHECK(objects.back() == c.span_of(objects.back())->start.ptr());
}

TEST_CASE("central cache: a class that has many spans takes several in a row, and gives them back",
          "[I8]") {
  OneClass c(class_of(128));
  const std::size_t group = kSpanGroupBytes / kPageBytes;
  Objects objects;
  while (c.central.stats().spans < group << kSpanGroupShift || c.central.stats().free != 0) {
    const Objects more = c.refill(c.size().objects);
    objects.insert(objects.end(), more.begin(), more.end());
  }
  REQUIRE(c.central.stats().free == 0);
  // The next spans come together, and what is handed out from them rises without a gap.
  const std::size_t before = c.central.stats().spans;
  const Objects first = c.refill(1);
  CHECK(c.central.stats().spans == before + group);
  CHECK(c.central.stats().free == group * c.size().objects - 1);
  const char* last = static_cast<const char*>(first.front());
  for (std::size_t taken = 1; taken < group * c.size().objects;) {
    Objects more = c.refill(std::min<std::size_t>(7, group * c.size().objects - taken));
    std::reverse(more.begin(), more.end());
    for (void* const object : more) {
      CHECK(static_cast<const char*>(object) == last + c.size().bytes);
      last = static_cast<const char*>(object);
    }
    taken += more.size();
    objects.insert(objects.end(), more.begin(), more.end());
  }
  objects.insert(objects.end(), first.begin(), first.end());
  CHECK(c.central.stats().spans == before + group);
  c.t.check();

  const Objects one = c.refill(1);  // a further group, of which one object is used
  c.central.trim();
  CHECK(c.central.stats().spans == before + group + 1);
  c.t.check();
  c.send_home(one);
  c.send_home(objects);
  CHECK(c.central.stats().spans == 0);
}

TEST_CASE("central cache: a class that has many spans gets memory for the next ones at once") {
  const unsigned cls = GENERATE(class_of(128), class_of(kMaxPopulatedBytes), class_of(16 * 1024));
  OneClass c(cls);
  Objects objects;
  const auto held = [&c] { return c.central.stats().spans * c.size().pages * kPageBytes; };
  const auto take_all = [&] {
    do {
      objects.push_back(c.refill(1).front());
    } while (c.central.stats().free != 0);
  };
  while (held() < kSpanGroupBytes << kPopulateShift) {
    CHECK(c.t.fake.populated_bytes() == 0);  // small programs touch what they use and no more
    take_all();
  }
  const std::size_t before = held();
  take_all();
  const bool is_small = c.size().bytes <= kMaxPopulatedBytes;
  CHECK(c.t.fake.populated_bytes() == (is_small ? held() - before : 0));

  const std::size_t populated = c.t.fake.populated_bytes();
  c.send_home(objects);
  objects.clear();
  while (held() <= before) take_all();
  CHECK(c.t.fake.populated_bytes() == populated);  // what was free has memory
  c.send_home(objects);
}

TEST_CASE("central cache: one refill may empty spans and begin others", "[I8]") {
  OneClass c(kClass1024);
  const std::size_t per_span = c.size().objects;
  const Objects first = c.refill(per_span - 1);
  const Objects objects = c.refill(2 * per_span);
  CHECK(objects.size() == 2 * per_span);
  CHECK(c.central.stats().spans == 3);
  CHECK(c.central.stats().free == 1);
  CHECK(std::set<void*>(objects.begin(), objects.end()).size() == objects.size());
  c.t.check();
}

TEST_CASE("central cache: the bitmaps say what is where", "[I7][I8]") {
  const unsigned cls = GENERATE(kClass8, kClass48, kClass1024);
  OneClass c(cls);
  const std::size_t per_span = c.size().objects;
  Objects objects = c.refill(per_span / 2);
  void* const any = objects.front();
  const std::size_t taken = objects.size();
  CHECK(c.free_bits(any) == per_span - taken);
  CHECK(c.home_bits(any) == per_span - taken);
  CHECK(c.span_of(any)->free_count == per_span - taken);

  // In the store: home, not free.
  const std::size_t some = std::max<std::size_t>(taken / 8, 1);
  c.spill(Objects(objects.begin(), objects.begin() + static_cast<std::ptrdiff_t>(some)));
  CHECK(c.central.stats().stored == some);
  CHECK(c.free_bits(any) == per_span - taken);
  CHECK(c.home_bits(any) == per_span - taken + some);
  c.central.check();

  c.central.trim();
  CHECK(c.central.stats().stored == 0);
  CHECK(c.free_bits(any) == per_span - taken + some);
  CHECK(c.home_bits(any) == per_span - taken + some);
  CHECK(c.span_of(any)->free_count == c.free_bits(any));
  CHECK(c.central.stats().free == c.free_bits(any));
  c.central.check();
}

TEST_CASE("central cache: a stored batch is handed out again as it is", "[I7]") {
  OneClass c(kClass8);
  const Objects objects = c.refill(400);
  const Objects batch(objects.begin(), objects.begin() + 64);
  c.spill(batch);
  CHECK(c.central.stats().stored == 64);
  const Objects last(batch.begin() + 32, batch.end());
  CHECK(c.refill(32) == last);
  CHECK(c.home_bits(objects[0]) == c.free_bits(objects[0]) + 32);
  // The rest of the store first, then the spans.
  const Objects more = c.refill(40);
  CHECK(std::equal(batch.begin(), batch.begin() + 32, more.begin()));
  CHECK(c.central.stats().stored == 0);
  c.t.check();
  c.spill(last);
  c.spill(more);
  c.t.check();
}

TEST_CASE("central cache: what the store has no room for goes into the spans", "[I7][I8]") {
  OneClass c(kClass512);
  const std::size_t room = 2 * std::size_t{c.size().batch};
  const Objects objects = c.refill(5 * room);
  const auto part = [&](std::size_t from, std::size_t to) {
    return Objects(objects.begin() + static_cast<std::ptrdiff_t>(from),
                   objects.begin() + static_cast<std::ptrdiff_t>(to));
  };
  c.spill(part(0, room));
  CHECK(c.central.stats().stored == room);
  const std::size_t free = c.central.stats().free;
  c.spill(part(room, room + 3));  // their neighbours keep the span
  CHECK(c.central.stats().stored == room);
  CHECK(c.central.stats().free == free + 3);
  c.t.check();
}

TEST_CASE("central cache: as less is in use the store holds less, and spans go back", "[I7][I8]") {
  OneClass c(kClass512);
  const std::size_t batch = c.size().batch;
  Objects objects = c.refill(10 * batch);
  std::size_t most = 0;
  for (std::size_t done = 0; done < objects.size(); done += 4) {
    c.central.spill(objects.data() + done, 4, {Caller::kFree});
    const std::size_t away = objects.size() - done - 4;
    const CentralStats s = c.central.stats();
    CHECK(s.objects - s.free - s.stored == away);
    CHECK(s.stored <= kMinStored + (away + 4) / 4);
    most = std::max(most, s.stored);
  }
  CHECK(most == 2 * batch);
  CHECK(c.central.stats().spans <= kMinStored);
  c.t.check();
}

TEST_CASE("central cache: of longer objects the store holds few, however many are in use", "[I8]") {
  for (const unsigned cls : {kClass512 + 1, kClass1024, class_of(8192)}) {
    OneClass c(cls);
    const std::size_t batch = c.size().batch;
    Objects objects = c.refill(20 * batch);
    for (std::size_t done = 0; done < objects.size() / 2; ++done) {
      c.central.spill(objects.data() + done, 1, {Caller::kFree});
      REQUIRE(c.central.stats().stored <= std::min<std::size_t>(kMinStored, batch / 4U));
    }
    c.t.check();
  }
}

TEST_CASE("central cache: with nothing in use the store holds little, in bytes as well", "[I8]") {
  for (const unsigned cls : {kClass48, kClass1024, class_of(8192), kClassLargest}) {
    OneClass c(cls);
    for (void* const object : c.refill(24)) c.spill({object});
    const CentralStats s = c.central.stats();
    CHECK(s.stored == std::min<std::size_t>(kMinStored, c.size().batch / 4U));
    CHECK(s.free + s.stored == s.objects);
    c.t.check();
  }
}

TEST_CASE("central cache: objects are taken from the fullest span", "[I8]") {
  OneClass c(kClass1024);
  const std::size_t per_span = c.size().objects;
  const Objects objects = c.refill(3 * per_span);
  const auto span_at = [&](std::size_t i) {  // the objects of the i-th span
    return Objects(objects.begin() + static_cast<std::ptrdiff_t>(i * per_span),
                   objects.begin() + static_cast<std::ptrdiff_t>((i + 1) * per_span));
  };
  Objects few = span_at(1);
  few.resize(1);
  Objects some = span_at(0);
  some.resize(per_span / 4);
  Objects most = span_at(2);
  most.resize(per_span - 1);
  for (const Objects& part : {some, most, few}) c.send_home(part);
  c.central.check();
  CHECK(c.refill(1) == few);
  Objects next = c.refill(per_span / 4);
  std::sort(next.begin(), next.end());
  std::sort(some.begin(), some.end());
  CHECK(next == some);
  c.central.check();
}

TEST_CASE("central cache: a span moves from list to list as it fills and empties", "[I8]") {
  OneClass c(kClass8);
  Objects objects = c.refill(c.size().objects);
  for (std::size_t i = 0; i + 1 < objects.size(); ++i) {
    c.central.spill(&objects[i], 1, {Caller::kFree});
    if (i % 7 == 0) c.central.trim();
    c.central.check();
  }
  c.central.trim();
  c.central.check();
  CHECK(c.free_bits(objects[0]) == objects.size() - 1);
  std::size_t left = objects.size() - 1;
  for (std::size_t n = 1; left != 0; n = std::min(2 * n, left)) {
    left -= c.refill(n).size();
    c.central.check();
  }
}

TEST_CASE("central cache: a span goes back when its last object comes home", "[I7]") {
  const unsigned cls = GENERATE(kClass8, kClass1024, kClassLargest);
  OneClass c(cls);
  const Objects objects = c.refill(c.size().objects);
  const std::size_t pages = c.t.heap.stats().in_use.value;
  CHECK(pages == c.size().pages);
  Objects all_but_one(objects.begin(), objects.end() - 1);
  c.send_home(all_but_one);
  CHECK(c.central.stats().spans == 1);
  CHECK(c.t.heap.stats().in_use.value == pages);
  c.send_home({objects.back()});
  CHECK(c.central.stats().spans == 0);
  CHECK(c.central.stats().free == 0);
  CHECK(c.t.heap.stats().in_use.value == 0);
  CHECK(c.t.map->class_at(reinterpret_cast<std::uintptr_t>(objects[0])) == 0);
  c.t.check();
}

TEST_CASE("central cache: spans that come and go need no new metadata") {
  OneClass c(kClass8);  // its bitmaps are blocks of their own
  std::size_t metadata = 0;
  for (int i = 0; i < 2000; ++i) {
    const Objects objects = c.refill(10);
    c.send_home(objects);
    if (i == 10) metadata = c.t.fake.metadata_bytes();
  }
  CHECK(c.t.fake.metadata_bytes() == metadata);
}

TEST_CASE("central cache: no byte of a free object is changed, in the store or in its span") {
  for (const unsigned cls : {kClass8, kClass48, kClass1024, kClassLargest}) {
    OneClass c(cls);
    const Objects keep = c.refill(1);
    const Objects objects = c.refill(std::min<std::size_t>(c.size().batch, c.size().objects));
    const auto untouched = [&] {
      return std::all_of(objects.begin(), objects.end(),
                         [&](void* object) { return all_bytes_are(object, c.size().bytes, 0x5a); });
    };
    for (void* const object : objects) memset(object, 0x5a, c.size().bytes);
    c.spill(objects);
    CHECK(untouched());
    c.central.trim();
    CHECK(untouched());
    c.refill(objects.size());
    CHECK(untouched());
  }
}

// --- Memory returned from spans in use ----------------------------------------------------------

// 8 objects in 16 KiB.
constexpr unsigned kClass2048 = class_of(2048);
static_assert(kSizeClasses[kClass2048].objects == 8 && kSizeClasses[kClass2048].bytes == 2048);

// All that can be returned, or all that can and has lain for long.
std::size_t return_pages(OneClass& c, bool only_quiet = false) {
  std::size_t spans = 1000;
  return c.central.return_pages(only_quiet, spans);
}

// Rounds of age() go by.
void pass_rounds(OneClass& c, unsigned rounds) {
  for (unsigned i = 0; i < rounds; ++i) {
    c.t.fake.pass_ms(kAgeMs);
    CHECK(c.t.heap.age(c.t.fake.os().now_ms()));
  }
}

TEST_CASE("central cache: whole pages of free objects go back, and what is live stays",
          "[I7][I8]") {
  OneClass c(kClass2048);
  Objects objects = c.refill(8);
  std::sort(objects.begin(), objects.end());
  for (void* const object : objects) memset(object, 7, 2048);
  const std::size_t before = c.t.fake.decommitted_bytes();
  SECTION("between two objects in use, and to the end of the span") {
    c.send_home(
        {objects[0], objects[1], objects[2], objects[4], objects[5], objects[6], objects[7]});
    CHECK(return_pages(c) == 3 * 4096);
    CHECK(all_bytes_are(objects[3], 2048, 7));
  }
  SECTION("no page if each has an object in use") {
    c.send_home({objects[1], objects[3], objects[5], objects[7]});
    CHECK(return_pages(c) == 0);
  }
  SECTION("of one object less than a page, nothing is tried") {
    c.send_home({objects[1]});
    CHECK(return_pages(c) == 0);
  }
  const std::size_t returned = c.t.fake.decommitted_bytes() - before;
  c.t.check();
  CHECK(return_pages(c) == 0);  // a second time there is nothing
  CHECK(c.t.fake.decommitted_bytes() - before == returned);
  objects = c.refill(8);
  CHECK(objects.size() == 8);
  for (void* const object : objects) memset(object, 1, 2048);
  c.t.check();
}

TEST_CASE("central cache: kernel pages that are longer than a span's are left alone", "[kernel]") {
  Tiers t(1 << 20, 65536);
  void* objects[8];
  REQUIRE(t.refill(kClass2048, objects, 8) == 8);
  t.central[kClass2048].spill(objects, 7, {Caller::kFree});
  t.central[kClass2048].trim();
  std::size_t spans = 1000;
  CHECK(t.central[kClass2048].return_pages(false, spans) == 0);
  t.check();
}

TEST_CASE("central cache: spans have to lie for a while, and those that change begin anew",
          "[I8]") {
  OneClass c(kClass2048);
  Objects objects = c.refill(16);
  std::sort(objects.begin(), objects.end());
  c.send_home({objects.begin(), objects.begin() + 6});
  c.send_home({objects.begin() + 8, objects.begin() + 14});
  CHECK(return_pages(c, true) == 0);
  pass_rounds(c, kQuietRounds - 1);
  CHECK(return_pages(c, true) == 0);
  CHECK(c.refill(4).size() == 4);  // of one of them
  pass_rounds(c, 1);
  CHECK(return_pages(c, true) == 3 * 4096);  // of the other
  pass_rounds(c, 1);
  CHECK(return_pages(c, true) == 4096);  // of the first: two objects are left
  c.t.check();
}

TEST_CASE("central cache: of spans that are as full, one with its memory is carved first", "[I8]") {
  OneClass c(kClass2048);
  Objects objects = c.refill(16);
  std::sort(objects.begin(), objects.end());
  c.send_home({objects.begin(), objects.begin() + 4});
  CHECK(return_pages(c) == 2 * 4096);
  c.send_home({objects.begin() + 8, objects.begin() + 12});
  Objects next = c.refill(4);
  std::sort(next.begin(), next.end());
  CHECK(next == Objects(objects.begin() + 8, objects.begin() + 12));
  CHECK(c.refill(1)[0] == objects[0]);
  c.t.check();
}

std::string interior_text(const void* ptr, const void* object, std::size_t bytes) {
  return death("free(" + hex(ptr) + "): interior pointer: the object begins at " + hex(object) +
               " and has " + std::to_string(bytes) + " bytes");
}
std::string double_free_text(const void* ptr) {
  return death("free(" + hex(ptr) + "): double free: the object is already free");
}

// What comes home to a span while its pages are on their way to the OS.
OneClass* returning = nullptr;
Objects come_home;

TEST_CASE("central cache: objects come home to a span whose pages are being returned", "[I7][I8]") {
  const std::size_t count = GENERATE(1U, 4U);  // some of the others, or all
  OneClass c(kClass2048);
  Objects objects = c.refill(8);
  std::sort(objects.begin(), objects.end());
  c.send_home({objects.begin(), objects.begin() + 4});
  returning = &c;
  come_home.assign(objects.begin() + 4, objects.begin() + 4 + static_cast<std::ptrdiff_t>(count));
  c.t.fake.at_decommit([] {
    returning->send_home(come_home);
    returning->central.check();
    const CentralStats s = returning->central.stats();
    CHECK(s.partial_spans == (s.free == 8 ? 0 : 1));
    CHECK(s.partial_free == (s.free == 8 ? 0 : s.free));
    CHECK(ending_of([] { returning->spill({come_home[0]}); }) == double_free_text(come_home[0]));
    CHECK(returning->refill(1)[0] > come_home.back());  // of another span
    come_home.clear();
  });
  std::size_t spans = 1;
  CHECK(c.central.return_pages(false, spans) == 2 * 4096);
  c.t.fake.at_decommit(nullptr);
  c.t.check();
  CHECK(c.central.stats().spans == (count == 4 ? 1 : 2));
}

TEST_CASE("central cache: the OS refuses, and the span is as it was") {
  OneClass c(kClass2048);
  Objects objects = c.refill(8);
  for (void* const object : objects) memset(object, 7, 2048);
  c.send_home({objects.begin(), objects.begin() + 7});
  c.t.fake.fail(OsCall::kDecommit, 1, test::kAlways);
  CHECK(return_pages(c) == 0);
  c.t.check();
  CHECK(all_bytes_are(objects[7], 2048, 7));
  CHECK(c.refill(7).size() == 7);
}

// --- Bad pointers -------------------------------------------------------------------------------

std::string stale_text(const void* ptr) {
  return death("free(" + hex(ptr) + "): stale pointer: its pages are free");
}

TEST_CASE("central cache: an object that is in the store or in its span is not taken again",
          "[I7]") {
  const unsigned cls = GENERATE(kClass48, kClass1024);
  const bool stored = GENERATE(false, true);
  OneClass c(cls);
  const Objects objects = c.refill(8);
  c.spill({objects[3]});
  if (!stored) c.central.trim();
  CHECK(ending_of([&] { c.spill({objects[3]}); }) == double_free_text(objects[3]));
  CHECK(ending_of([&] { c.spill(objects); }) == double_free_text(objects[3]));
}

TEST_CASE("central cache: of a batch with one object twice, that object is named", "[I7]") {
  OneClass c(kClass48);
  const Objects objects = c.refill(6);
  CHECK(ending_of([&] {
          c.spill({objects[0], objects[1], objects[1]});
        }) == double_free_text(objects[1]));
  CHECK(ending_of([&] {
          c.spill({objects[1], objects[0], objects[2], objects[1]});
        }) == double_free_text(objects[1]));
}

TEST_CASE("central cache: an object never handed out is free, and freeing it is caught", "[I7]") {
  OneClass c(kClass48);
  char* const object = static_cast<char*>(c.refill(1)[0]);
  CHECK(ending_of([&] { c.spill({object + 48}); }) == double_free_text(object + 48));
}

TEST_CASE("central cache: a pointer into an object is told from one to it") {
  for (const unsigned cls : {kClass8, kClass48, kClass1024, kClassLargest}) {
    OneClass c(cls);
    char* const object = static_cast<char*>(c.refill(2)[0]);
    const std::size_t bytes = c.size().bytes;
    for (const std::size_t offset : {std::size_t{1}, bytes / 2, bytes - 1}) {
      CAPTURE(bytes, offset);
      CHECK(ending_of([&] { c.spill({object + offset}); }) ==
            interior_text(object + offset, object, bytes));
    }
  }
}

TEST_CASE("central cache: behind the last object of a span nothing is an object") {
  OneClass c(kClass48);
  const std::size_t used = std::size_t{c.size().objects} * 48;
  REQUIRE(used < c.size().pages * kPageBytes);
  char* const start = c.span_of(c.refill(1)[0])->start.ptr();
  CHECK(ending_of([&] {
          c.spill({start + used});
        }).find("SIGABRT: libminitc: free(" + hex(start + used) + "): foreign pointer: ") == 0);
  CHECK(c.central.find(start + used).verdict == Verdict::kForeign);
  CHECK(c.central.find(start + c.size().pages * kPageBytes - 1).verdict == Verdict::kForeign);
}

TEST_CASE("central cache: a pointer into pages that are not of this class is stale", "[I7]") {
  OneClass c(kClass48);
  const Objects objects = c.refill(2);
  c.send_home(objects);
  CHECK(ending_of([&] { c.spill({objects[0]}); }) == stale_text(objects[0]));

  // The same pages as a span of another class, and as a large object.
  void* other = nullptr;
  REQUIRE(c.t.refill(kClass8, &other, 1) == 1);
  CHECK(ending_of([&] { c.spill({other}); }) == stale_text(other));
  Span* const large = c.t.large(1);
  CHECK(ending_of([&] { c.spill({large->start.ptr()}); }) == stale_text(large->start.ptr()));
}

TEST_CASE("central cache: who is to blame stands in the message") {
  OneClass c(kClass48);
  const Objects objects = c.refill(2);
  c.spill({objects[0]});
  CHECK(ending_of([&] { c.spill({objects[0]}, Caller::kFreeLate); }) ==
        death("free(" + hex(objects[0]) +
              "): double free: the object is already free (found when it left the thread cache; "
              "MINITC_CHECK_FREE=1 finds it at the call)"));
}

// --- Bad pointers, ignored ----------------------------------------------------------------------

// All objects of the class's first spans are away; each is taken and given exactly once.
void expect_whole(OneClass& c, const Objects& away) {
  const CentralStats s = c.central.stats();
  CHECK(s.objects - s.free - s.stored == away.size());
  c.t.check();
  std::set<void*> all(away.begin(), away.end());
  for (void* const object : c.refill(c.size().batch)) {
    REQUIRE(all.insert(object).second);
    REQUIRE(c.central.find(object).verdict == Verdict::kLive);
  }
}

TEST_CASE("central cache, ignoring: bad pointers are left out of their batch", "[I7][I8]") {
  const unsigned cls = GENERATE(kClass48, kClass1024);
  OneClass c(cls, /*ignores_bad_pointers=*/true);
  const std::size_t per_span = c.size().objects;
  Objects objects = c.refill(3 * per_span);
  std::sort(objects.begin(), objects.end());
  char* const kept = static_cast<char*>(objects[0]);
  char* const freed = static_cast<char*>(objects[1]);
  c.send_home({freed});
  const std::size_t free = c.central.stats().free;

  const std::string text = test::stderr_of([&] {
    c.spill({kept + 1, objects[2], freed, objects[3], objects[3], objects[4], objects[2], kept + 8,
             objects[5], freed});
  });
  const std::string bytes = " and has " + std::to_string(c.size().bytes) + " bytes\n";
  const auto said = [](const void* ptr, const std::string& what) {
    return "libminitc: free(" + hex(ptr) + "): " + what;
  };
  const std::string interior = "interior pointer: the object begins at " + hex(kept) + bytes;
  const std::string twice = "double free: the object is already free\n";
  CHECK(text == said(kept + 1, interior) + said(freed, twice) + said(objects[3], twice) +
                    said(objects[2], twice) + said(kept + 8, interior) + said(freed, twice));
  CHECK(c.central.find(kept).verdict == Verdict::kLive);
  CHECK(c.central.stats().free == free + 4);
  objects.erase(objects.begin() + 1, objects.begin() + 6);
  expect_whole(c, objects);
}

TEST_CASE("central cache, ignoring: a batch of nothing but bad pointers changes nothing", "[I7]") {
  OneClass c(kClass1024, /*ignores_bad_pointers=*/true);
  const std::size_t per_span = c.size().objects;
  Objects objects = c.refill(per_span + 1);
  const Objects gone(objects.begin(), objects.begin() + static_cast<std::ptrdiff_t>(per_span));
  objects.erase(objects.begin(), objects.begin() + static_cast<std::ptrdiff_t>(per_span));
  c.send_home(gone);  // a span whose pages are free now, and one of another class there
  REQUIRE(c.central.stats().spans == 1);
  void* other = nullptr;
  REQUIRE(c.t.refill(kClass8, &other, 1) == 1);
  const CentralStats before = c.central.stats();
  const std::string text = test::stderr_of([&] {
    c.spill(gone);
    c.spill({other});
    for (std::size_t i = 1; i < 1024; i += 100) c.spill({static_cast<char*>(objects[0]) + i});
  });
  CHECK(static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')) == per_span + 1 + 11);
  CHECK(c.central.stats().spans == before.spans);
  CHECK(c.central.stats().free == before.free);
  CHECK(c.central.stats().stored == before.stored);
  CHECK(c.t.central[kClass8].find(other).verdict == Verdict::kLive);
  expect_whole(c, objects);
}

TEST_CASE("central cache, ignoring: of threads that free the same objects one frees each", "[I7]") {
  OneClass c(kClass48, /*ignores_bad_pointers=*/true);
  for (std::size_t round = 0; round < 20 * test::kRounds; ++round) {
    Objects objects = c.refill(200);
    // One object of each span stays away, so that every other has a span throughout.
    Objects pins;
    const auto is_first = [&](void* object) { return c.span_of(object)->start.ptr() == object; };
    std::copy_if(objects.begin(), objects.end(), std::back_inserter(pins), is_first);
    objects.erase(std::remove_if(objects.begin(), objects.end(), is_first), objects.end());
    const std::string text =
        test::stderr_of([&] { test::in_threads(4, [&](std::size_t) { c.spill(objects); }); });
    CHECK(static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')) ==
          3 * objects.size());
    const CentralStats s = c.central.stats();
    REQUIRE(s.objects - s.free - s.stored == pins.size());
    c.t.check();
    c.spill(pins);
  }
}

TEST_CASE("central cache, ignoring: no bit is set without the class's lock", "[I7]") {
  for (const bool ignores : {false, true}) {
    OneClass c(kClass48, ignores);
    const Objects objects = c.refill(2);
    const Span* const span = c.span_of(objects[0]);
    const auto home = [=] { return span->home_word(0).load(std::memory_order_relaxed); };
    const std::uint64_t before = home();
    std::atomic<bool> begun{false};
    c.central.lock().lock();
    std::thread other([&] {
      begun = true;
      c.spill({objects[1]});
    });
    while (!begun) std::this_thread::yield();
    // Where they are not ignored it is set at once.
    for (int i = 0; i < 50 && home() == before; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(ignores ? 1 : 100));
    }
    CHECK((home() == before) == ignores);
    c.central.lock().unlock();
    other.join();
    CHECK(std::popcount(home() ^ before) == 1);
  }
}

// Frees an object that was in the pages of a span that is only being made.
struct Trespass {
  CentralCache* central;
  void* object;
  std::size_t calls = 0;
};
Trespass* trespass = nullptr;

TEST_CASE("central cache, ignoring: a span that has no bitmaps yet takes nothing", "[I7]") {
  OneClass c(kClass8, /*ignores_bad_pointers=*/true);
  const Objects objects = c.refill(1);
  c.send_home(objects);
  REQUIRE(c.central.stats().spans == 0);
  // There is memory for spans, but bitmaps need a new chunk.
  const unsigned span_shift = MetadataArena::shift_of(sizeof(Span));
  void* blocks[4];
  for (void*& block : blocks) block = c.t.arena.allocate_block(span_shift);
  c.t.exhaust_metadata(MetadataArena::shift_of(2 * c.size().words() * sizeof(std::uint64_t)));
  c.t.fake.stop_failing();
  for (void* const block : blocks) c.t.arena.deallocate_block(block, span_shift);

  Trespass here{&c.central, objects[0]};
  trespass = &here;
  c.t.fake.fail(OsCall::kMetadata, 1);  // before there are spans
  c.t.fake.at_metadata([] {
    if (trespass->calls++ == 0) return;
    std::thread([] { trespass->central->spill(&trespass->object, 1, {Caller::kFree}); }).join();
  });
  Objects again;
  const std::string text = test::stderr_of([&] { again = c.refill(1); });
  c.t.fake.at_metadata(nullptr);
  CHECK(again == objects);
  CHECK(text == "libminitc: free(" + hex(objects[0]) + "): stale pointer: its pages are free\n");
  expect_whole(c, again);
}

TEST_CASE("central cache: an object is found live while it is away, and freed at home", "[I7]") {
  OneClass c(kClass48);
  const Objects objects = c.refill(3);
  char* const object = static_cast<char*>(objects[1]);
  CHECK(c.central.find(object).verdict == Verdict::kLive);
  CHECK(c.central.find(object).bytes == 48);
  const Finding interior = c.central.find(object + 47);
  CHECK(interior.verdict == Verdict::kInterior);
  CHECK(interior.start == reinterpret_cast<std::uintptr_t>(object));
  c.spill({object});
  CHECK(c.central.find(object).verdict == Verdict::kFreed);
  c.central.trim();
  CHECK(c.central.find(object).verdict == Verdict::kFreed);
  CHECK(c.central.find(object + 47).verdict == Verdict::kInterior);
}

TEST_CASE("central cache: says of a span how many objects are free in it", "[I7][I8]") {
  OneClass c(kClass48);
  const Objects objects = c.refill(10);
  Span* const span = c.span_of(objects[0]);
  const SpanUse use = c.central.use_of(span->start);
  CHECK(use.is_mine);
  CHECK(use.free_objects + 10 == c.size().objects);
  CHECK(use.violation == nullptr);
  span->free_word(0) ^= 1;
  span->home_word(0).fetch_or(1);
  CHECK(c.central.use_of(span->start).violation != nullptr);
  CHECK(c.central.violation() != nullptr);
  span->free_word(0) ^= 1;
  span->home_word(0).fetch_and(~std::uint64_t{1});
  CHECK(c.central.use_of(span->start).violation == nullptr);
  CHECK(c.central.violation() == nullptr);
  // Not of this class: another's, a free one, none, none that begins there.
  void* other = nullptr;
  REQUIRE(c.t.refill(kClass1024, &other, 1) == 1);
  CHECK_FALSE(c.central.use_of(c.span_of(other)->start).is_mine);
  CHECK_FALSE(c.central.use_of(PageId{5}).is_mine);
  CHECK(c.t.central[kClass1024].use_of(c.span_of(other)->start).is_mine);
  CHECK_FALSE(c.t.central[kClass1024].use_of(c.span_of(other)->start + kOnePage).is_mine);
  c.send_home(objects);
  CHECK_FALSE(c.central.use_of(span->start).is_mine);
}

TEST_CASE("central cache: the self-check sees a bitmap that is wrong", "[I7][I8]") {
  OneClass c(kClass48);
  const Objects objects = c.refill(10);
  Span* const span = c.span_of(objects[0]);
  CHECK(check_fails([&] {  // a free object that is not home
    span->home_word(60).fetch_and(~Span::mask_of(60));
    c.central.check();
  }));
  CHECK(check_fails([&] {  // one free object more than counted
    span->free_word(0) |= 1;
    span->home_word(0).fetch_or(1);
    c.central.check();
  }));
  CHECK(check_fails([&] {  // in the wrong list
    span->free_count = 1;
    c.central.check();
  }));
  c.spill({objects[0]});
  CHECK(check_fails([&] {  // an object in the store that is not home
    const std::size_t index = object_index(
        c.size(), static_cast<std::size_t>(static_cast<char*>(objects[0]) - span->start.ptr()));
    span->home_word(index).fetch_and(~Span::mask_of(index));
    c.central.check();
  }));
}

// --- Refusals -----------------------------------------------------------------------------------

TEST_CASE("central cache: without memory a refill gives what there is, or nothing", "[I7]") {
  OneClass c(kClass1024);
  c.t.fake.fail_any(1, test::kAlways);
  CHECK(c.refill(5).empty());
  c.t.check();
  c.t.fake.stop_failing();

  const Objects first = c.refill(1);
  REQUIRE(first.size() == 1);
  std::vector<Span*> rest;  // of the page heap's chunk
  c.t.fake.fail_any(1, test::kAlways);
  while (Span* const span = c.t.large(1)) rest.push_back(span);
  const Objects some = c.refill(c.size().objects + 5);
  CHECK(some.size() == c.size().objects - 1U);
  c.t.check();
  c.spill(first);
  c.send_home(some);
  CHECK(c.central.stats().spans == 0);
  c.t.check();
}

TEST_CASE("central cache: a span whose bitmaps find no room goes back", "[I4]") {
  OneClass c(kClass8);
  // A run of its length is there, and none that could be used for metadata.
  const std::size_t pages = kSizeClasses[kClass8].pages;
  Span* const run = c.t.large(pages);
  REQUIRE(c.t.large(kMinChunkPages - pages) != nullptr);
  c.t.release(run);
  c.t.exhaust_metadata(MetadataArena::shift_of(2 * kSizeClasses[kClass8].objects / 8));
  const std::size_t in_use = c.t.heap.stats().in_use.value;
  CHECK(c.refill(5).empty());
  CHECK(c.t.heap.stats().in_use.value == in_use);
  CHECK(c.central.stats().spans == 0);
  c.t.check();
  c.t.fake.stop_failing();
  CHECK(c.refill(5).size() == 5);
}

TEST_CASE("central cache: bitmaps find room in the heap's own free pages", "[I4]") {
  OneClass c(kClass8);
  REQUIRE(c.t.large(1) != nullptr);  // the rest of the chunk is free
  Span* const spare = c.t.large(1);
  c.t.release(spare);
  c.t.heap.trim();  // it joins the rest, and another span can be described
  c.t.exhaust_metadata(MetadataArena::shift_of(2 * kSizeClasses[kClass8].objects / 8));
  CHECK(c.refill(5).size() == 5);
  CHECK(c.t.adds_up());
  c.t.check();
}

TEST_CASE("central cache: without memory for a store, objects go into their spans", "[I7]") {
  OneClass c(kClass48);
  const Objects objects = c.refill(10);
  c.t.exhaust_metadata(MetadataArena::shift_of(2 * std::size_t{c.size().batch} * sizeof(void*)));
  const std::size_t free = c.central.stats().free;
  c.spill(Objects(objects.begin(), objects.begin() + 4));
  CHECK(c.central.stats().stored == 0);
  CHECK(c.central.stats().free == free + 4);
  c.t.check();
  c.t.fake.stop_failing();
  c.spill(Objects(objects.begin() + 4, objects.end()));
  CHECK(c.central.stats().stored == 6);
  c.t.check();
}

// One that is too long for the store makes none, and waits for the lock.
TEST_CASE("central cache: a store is made and filled while another thread's batch is on its way",
          "[I7]") {
  OneClass c(kClass1024);
  const Objects objects = c.refill(c.size().batch);
  const Objects one = c.refill(1);
  c.central.lock().lock_for_fork();  // lets this thread through, and no other
  std::atomic<bool> begun{false};
  std::thread other([&] {
    begun = true;
    c.spill(objects);
  });
  while (!begun) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // it waits by now
  c.spill(one);
  CHECK(c.central.stats().stored == 1);
  c.central.lock().unlock_after_fork();
  other.join();
  const CentralStats s = c.central.stats();
  CHECK(s.stored == 1);
  CHECK(s.free + s.stored == s.objects);
  c.t.check();
}

TEST_CASE("central cache: once the store was full, the next spill finds home what it would find",
          "[I7]") {
  OneClass c(kClass48);
  const Objects objects = c.refill(kMinStored + 40);
  c.spill(Objects(objects.begin(), objects.begin() + 30));  // more than there is room for
  REQUIRE(c.central.stats().stored < 30);
  const CentralStats before = c.central.stats();
  c.spill(Objects(objects.begin() + 30, objects.begin() + 34));  // in one walk
  CHECK(c.central.stats().stored == before.stored);
  CHECK(c.central.stats().free == before.free + 4);
  CHECK(ending_of([&] { c.spill({objects[40], objects[31]}); }) == double_free_text(objects[31]));
  // What is taken out makes room again.
  c.refill(1);
  c.spill({objects[40]});
  CHECK(c.central.stats().stored == 1);
  c.t.check();
}

// --- Threads ------------------------------------------------------------------------------------

TEST_CASE("central cache: threads refill, spill each other's objects and trim at the same time",
          "[I7]") {
  Tiers t;
  constexpr unsigned kClasses[] = {kClass8, kClass48, kClass1024, kClassLargest};
  std::atomic<void*> exchange[64] = {};
  std::atomic<std::size_t> spoiled{0};
  test::in_threads(8, [&](std::size_t thread) {
    test::Random random(thread);
    for (std::size_t i = 0; i < 250 * test::kRounds; ++i) {
      const std::size_t slot = random.below(64);
      const unsigned cls = kClasses[slot % 4];
      const std::size_t bytes = std::min<std::size_t>(kSizeClasses[cls].bytes, 64);
      void* batch[16];
      const std::size_t want = std::min<std::size_t>(16, kSizeClasses[cls].batch);
      const std::size_t n = t.refill(cls, batch, want);
      for (std::size_t k = 0; k < n; ++k) memset(batch[k], static_cast<int>(slot), bytes);
      // One of them is left to whoever comes next.
      batch[0] = exchange[slot].exchange(batch[0]);
      const std::size_t skip = batch[0] == nullptr ? 1 : 0;
      for (std::size_t k = skip; k < n; ++k) {
        if (!all_bytes_are(batch[k], bytes, static_cast<unsigned char>(slot))) ++spoiled;
      }
      if (n > skip) t.central[cls].spill(batch + skip, n - skip, {Caller::kFree});
      if (thread == 7 && i % 16 == 0) t.central[cls].trim();
      if (thread == 6 && i % 16 == 0) t.central[cls].check();
      if (thread == 5) t.central[cls].stats();
    }
  });
  CHECK(spoiled == 0);
  t.check();
  for (std::size_t slot = 0; slot < 64; ++slot) {
    void* object = exchange[slot];
    if (object != nullptr) t.central[kClasses[slot % 4]].spill(&object, 1, {Caller::kFree});
  }
  CHECK(t.away() == 0);
  t.trim();
  CHECK(t.heap.stats().in_use == PageCount{});
  t.check();
}

}  // namespace
}  // namespace minitc
