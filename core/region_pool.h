// A region pool: the memory of one connection or request, which is freed all at once.
//
// Small blocks are bumped from chunks and never freed singly. Larger ones are objects of the heap,
// which the pool remembers in nodes among its small blocks.
//
//   first chunk                               next chunk
//   +-------+------------+--------+------+    +-------+--------+---------------+
//   | Chunk | RegionPool | blocks | room |--->| Chunk | blocks | room          |
//   +-------+------------+--------+------+    +-------+--------+---------------+
//                                                              ^               ^
//                                                              cursor_         limit_
//
// Thread safety: one thread at a time per pool, which debug builds check. Pools are independent of
// each other, and of the thread that made them.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "core/base.h"
#include "core/heap.h"

namespace MINITC_HIDDEN minitc {

// In bytes unless said otherwise.
struct RegionPoolStats {
  std::size_t chunks;  // how many
  std::size_t chunk_bytes;
  std::size_t used_bytes;   // of chunk_bytes: cut off for blocks and for the pool's own data
  std::size_t large_count;  // live large blocks
  std::size_t large_bytes;  // as they were asked for
};

class alignas(kMinAlign) RegionPool {
 public:
  using Function = void(void*);

  // What all below return if memory is refused: null, and errno is ENOMEM.
  MINITC_COLD static void* refuse();

  // A pool whose first chunk has at least `first_chunk_bytes`.
  static RegionPool* create(Heap& heap, std::size_t first_chunk_bytes);
  // Runs the cleanups, the last one first, and frees everything: large blocks, chunks, the pool.
  void destroy();
  // The same, but the pool stays, empty, with its first chunks.
  void reset();

  // A block of at least `bytes` (0 counts as 1) that is aligned to kMinAlign.
  MINITC_HOT void* allocate(std::size_t bytes) {
    if (bytes - 1 >= kMaxPoolSmall) [[unlikely]]  // large, or 0, which wraps
      return allocate_slow(bytes);
    char* const block = cursor_;
    char* const next = block + ((bytes - 1) | (kMinAlign - 1)) + 1;
    if (next > limit_) [[unlikely]]
      return allocate_slow(bytes);
    if (block == nullptr) __builtin_unreachable();
    cursor_ = next;
    return block;
  }
  // The same, all zero.
  void* allocate_zeroed(std::size_t bytes);
  // Aligned to `alignment`, a power of two.
  void* allocate_aligned(std::size_t bytes, std::size_t alignment);

  // Frees a large block early. False, and nothing was done, if `ptr` is none of this pool.
  bool free_large(void* ptr);
  // run(argument) will be called at the next reset or destroy. False, and errno is ENOMEM, if
  // memory is refused.
  bool add_cleanup(Function* run, void* argument);

  RegionPoolStats stats();

  // Dies if an invariant of this pool does not hold.
  void check();

 private:
  struct alignas(kMinAlign) Chunk {
    Chunk* next;
    char* cursor;  // first byte not cut off yet; of the chunk in use, cursor_ is newer
    char* end;
    std::uint32_t failures;  // requests for which there was no room

    std::size_t bytes() const { return static_cast<std::size_t>(end - begin()); }
    std::size_t room() const { return static_cast<std::size_t>(end - cursor); }
    char* begin() const { return reinterpret_cast<char*>(const_cast<Chunk*>(this)); }
  };
  // What the pool knows of a large block. A binary trie finds the node of a block; a block gets
  // into it no sooner than one is looked for. The bits of a hash tell which child to take.
  struct alignas(kMinAlign) Large {
    Large* next;  // all of the pool, the latest first
    void* block;  // null: freed early
    std::size_t bytes;
    Large* child[2];
  };
  struct Cleanup {
    Cleanup* next;
    Function* run;
    void* argument;
  };
  // Debug builds: a call on this pool is under way in this thread. It may be inside another, as a
  // cleanup function may use the pool.
  class Use {
   public:
    explicit Use(RegionPool& pool) : pool_(pool) { MINITC_ASSERT(pool_.enter(outer_)); }
    ~Use() { MINITC_ASSERT(pool_.leave(outer_)); }
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

   private:
    [[maybe_unused]] RegionPool& pool_;
    [[maybe_unused]] std::uintptr_t outer_ = 0;
  };

  RegionPool(Heap& heap, Chunk* first);

  bool enter(std::uintptr_t& outer);
  bool leave(std::uintptr_t outer);
  Chunk* first() const { return reinterpret_cast<Chunk*>(const_cast<RegionPool*>(this)) - 1; }
  char* first_block() { return reinterpret_cast<char*>(this + 1); }
  void empty(Chunk* chunk);
  static Chunk* make_chunk(Heap& heap, std::size_t bytes);
  void give_back(void* object);
  void open(Chunk* chunk);
  Chunk* chunk_with(std::size_t bytes);
  Chunk* find_chunk(std::size_t bytes);
  Chunk* add_chunk(std::size_t bytes);
  void* allocate_slow(std::size_t bytes);
  void* allocate_small(std::size_t bytes, std::size_t alignment = kMinAlign);
  void* allocate_large(std::size_t bytes);
  void* remember(void* block, std::size_t bytes);
  void* enlist(void* node, void* block, std::size_t bytes);
  void enter_larges();
  Large** way_of(const void* block, const void* wanted);
  void free_larges();
  void run_cleanups(const char* function);
  [[noreturn]] void die_of_cleanup(const char* function);
  void reset_chunks();
  void free_chunks(Chunk* chunk);
  void hold(std::size_t bytes);
  void note_peak();
  void forget_peak();
  void tell(std::size_t bytes);

  char* cursor_ = nullptr;
  char* limit_ = nullptr;
  Heap& heap_;
  Chunk* current_ = nullptr;       // blocks are cut from this one
  Chunk* open_ = nullptr;          // the first one that is not passed over; null: all are
  Chunk* last_ = nullptr;          // of the list that begins with first()
  Large* larges_ = nullptr;        // all nodes that are not spare, the latest first
  Large* entered_ = nullptr;       // the first of them that is in the trie
  Large* trie_ = nullptr;          // its root
  Large* spare_ = nullptr;         // nodes for the next blocks
  Cleanup* cleanups_ = nullptr;    // the latest first
  std::size_t held_bytes_ = 0;     // of chunks and large blocks
  std::size_t peak_bytes_ = 0;     // the most of it since it was last forgotten
  std::size_t counted_bytes_ = 0;  // in the heap's totals
  bool is_clearing_ = false;       // cleanup functions are running
  std::uint8_t resets_left_ = kPoolPeakResets;  // until the peak is forgotten
  std::atomic<std::uintptr_t> user_{0};         // debug builds: the thread inside a call, or 0
};

}  // namespace minitc
