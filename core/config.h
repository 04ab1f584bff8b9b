// Limits and tuning constants. Each has its unit and its reason; checks stand below the numbers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace minitc {

// --- Sizes -------------------------------------------------------------------------------------

// The page heap's unit, in bytes. 8 KiB: a span of it holds enough small objects to pay for its
// metadata, and rounding a large block to it wastes at most 6 % (kMaxSmall is 16 pages).
inline constexpr std::size_t kPageShift = 13;
inline constexpr std::size_t kPageBytes = std::size_t{1} << kPageShift;

// Largest request, in bytes, that is served by a size class.
inline constexpr std::size_t kMaxSmall = 128 * 1024;

// The request size is looked up in steps of this many bytes.
inline constexpr std::size_t kGrainShift = 3;
inline constexpr std::size_t kGrain = std::size_t{1} << kGrainShift;

// Alignment, in bytes, of every result of 9 bytes or more (what the x86-64 and AArch64 ABIs want).
inline constexpr std::size_t kMinAlign = 16;

// --- Address space -----------------------------------------------------------------------------

// User addresses that the page map covers. Linux hands out higher ones only on request.
inline constexpr std::size_t kAddressBits = 48;
// log2 of the pages one leaf of the page map describes: 4 GiB of addresses, so that the page's
// place in it is in the lower half of the address; 4.5 MiB of map, of which only what is used
// becomes resident.
inline constexpr std::size_t kLeafShift = 32 - kPageShift;

// --- Thread caches -----------------------------------------------------------------------------

// One size class of one thread: at most this many objects and this many bytes, but at least two
// objects, so that a malloc/free pair of a big class stays in the thread.
inline constexpr std::size_t kMaxCachedObjects = 256;
inline constexpr std::size_t kMaxCachedBytes = 512 * 1024;
inline constexpr std::size_t kMinCachedObjects = 2;
// First capacity of a class in a thread: a short-lived thread wants a few objects of many classes.
inline constexpr std::size_t kFirstCachedObjects = 4;
// Or so many bytes: two cache lines, so that the half that a refill brings shares none.
inline constexpr std::size_t kFirstCachedBytes = 128;
// But one object, or so many bytes.
inline constexpr std::size_t kMostFirstBytes = 16 * 1024;
// A stack that runs full or empty twice within kGrowMs, in milliseconds, becomes longer; one that
// did not for kShrinkMs, shorter: slow calls that rare need not be rarer. The clock goes by
// kTickMs.
inline constexpr std::uint16_t kGrowMs = 16;
inline constexpr std::uint16_t kShrinkMs = 48;
// Objects that move between tiers at a time, at most. More were no faster (docs/performance.md); of
// 72 KiB, not 64, a thread of 1 to 17 KiB needs an instruction less per object (docs/decisions.md).
inline constexpr std::size_t kMaxBatch = 64;
inline constexpr std::size_t kMaxBatchBytes = 72 * 1024;
// Objects that a thread that allocates nothing frees before it gets a cache. libc frees a few when
// a thread is past its end, which must not give it one.
inline constexpr std::uint32_t kLoneFrees = 128;
// Caches of such threads at a time. One whose end goes unnoticed leaves its cache behind: with all
// of them 0.2 MiB of caches, and what these hold.
inline constexpr std::uint32_t kMaxLoneCaches = 64;
// Refills and spills of one thread between two looks at what it no longer uses.
inline constexpr std::uint32_t kScavengePeriod = 128;
// And between two at the clock, which costs some 20 ns.
inline constexpr std::uint32_t kTickPeriod = 4;
// Milliseconds between two rounds of what is done now and then.
inline constexpr std::uint32_t kTickMs = 16;
// A thread may cache so many times what is left for all.
inline constexpr std::ptrdiff_t kMostOfBudget = 4;
// A cache that its owner has not come back to for so long is idle: time enough for all that the
// owner's processor may have held back, and for a stopped owner to run again.
inline constexpr std::uint32_t kIdleMs = 50;
// Caches that are looked at in a round, of those that at most so many are robbed, and the least
// that is worth it, in bytes.
inline constexpr std::size_t kIdleLooks = 64;
inline constexpr std::size_t kMaxRobbed = 8;
inline constexpr std::size_t kLeastRobbedBytes = 2 * 1024;

// --- Central caches ----------------------------------------------------------------------------

// Shards that there may be, and no more than processors.
inline constexpr unsigned kMaxShards = 16;
// Longest objects, in bytes, of which each shard has spans of its own. Of longer ones few come in a
// batch, and one that is freed elsewhere would split it.
inline constexpr std::size_t kMaxShardedBytes = 1024;
// A thread whose kScavengePeriod slow calls, in no more than kTickMs, came so many times to a cache
// that had last refilled another goes to another shard.
inline constexpr std::uint32_t kCrowdedMeetings = kScavengePeriod / 4;

// Objects that the store of a class may hold when the class has next to none in use, or a quarter
// of a batch if that is less; and the longest, in bytes, of which it ever holds more.
inline constexpr std::size_t kMinStored = 8;
inline constexpr std::size_t kMaxStoredBytes = 512;

// Bytes of the spans that a class takes from the page heap at a time when it has many: objects that
// are allocated in a row then lie in a row, for the prefetcher and the TLB.
inline constexpr std::size_t kSpanGroupBytes = 64 * 1024;
// But no more than this fraction of the spans it has, as a shift.
inline constexpr std::size_t kSpanGroupShift = 2;
// A class that takes no more than this fraction of the spans it has, as a shift, will soon have
// filled them: their memory is asked for at once. Larger objects may be written to in part.
inline constexpr std::size_t kPopulateShift = 4;
inline constexpr std::size_t kMaxPopulatedBytes = 8 * 1024;

// Of classes with longer objects than these a zeroed one comes straight from its span, if the
// thread has none: what was never handed out need not be cleared, and has no memory yet.
inline constexpr std::size_t kMaxClearedBytes = 15 * 1024;

// The free pages of a span that has had about as many free objects, within a factor of two, for so
// many rounds of age(), less a part of one, are returned; free runs that old are before others.
inline constexpr std::uint8_t kQuietRounds = 2;
// Those of so many spans at one look at the clock: some 30 us.
inline constexpr std::size_t kMaxQuiet = 16;

// --- Page heap ---------------------------------------------------------------------------------

// Runs shorter than this many pages are kept in exact bins, the others in an ordered tree.
inline constexpr std::size_t kBins = 128;
// Smallest and largest step, in pages, in which the heap asks the OS for address space; between
// them an eighth of what it has, or the multiple of a large request that is next below that.
inline constexpr std::size_t kMinChunkPages = 128;
inline constexpr std::size_t kMaxChunkPages = 8192;
// Pages of free spans that their classes give up at a time: for another's sake at least, so that it
// does not come back at once, and when there are too many, so that the lock is not held for long.
inline constexpr std::size_t kMinDissolved = 128;
inline constexpr std::size_t kMaxDissolved = 2048;
// Free pages that stay committed, in bytes: this much or an eighth of the live heap.
inline constexpr std::size_t kMinFreeBound = 32 * 1024 * 1024;
inline constexpr std::size_t kFreeBoundShift = 3;
// Or as many as were free, and taken again, in so many milliseconds.
inline constexpr std::uint32_t kReuseMs = 32;
// When the pages in use grow: in bytes, or as this part of the most that was ever in use; where a
// first touch brings a huge page, as this one.
inline constexpr std::size_t kMinPeakBound = 16 * 1024 * 1024;
inline constexpr std::size_t kPeakBoundPart = 6;
inline constexpr std::size_t kHugePeakBoundPart = 24;
// Free runs, from the shortest on, of which an aligned block takes the first that lies well.
inline constexpr std::size_t kAlignedLooks = 32;
// Runs that are returned to the OS between two times that the lock is taken; who does it has them
// on its stack. When there are too many free pages, this part of what may stay goes too, so that
// the next free one is no reason again.
inline constexpr std::size_t kReturnBatch = 16;
inline constexpr std::size_t kReturnSlackPart = 16;
// A run that the OS refuses is tried again by halves of at least so many bytes, and so many of the
// runs above at the most: what stays is what lies around a locked page.
inline constexpr std::size_t kMinHalfBytes = 256 * 1024;
inline constexpr std::size_t kMaxHalves = kReturnBatch / 2;
// Of pages that nobody has needed for so long, in milliseconds, this part is returned.
inline constexpr std::uint32_t kAgeMs = 250;
inline constexpr std::size_t kAgedPart = 2;
// But no more at a time than so many in a millisecond, a quarter of a MiB: the kernel takes some 30
// us for that.
inline constexpr std::size_t kAgedPerMs = 32;
// The kernel's huge pages. A heap asks for them when so many bytes are in use, since one that is
// used in part is then a small fraction of it, most of them in large blocks, and this part of those
// was freed and had been written to, in so many places each.
inline constexpr std::size_t kHugePageBytes = 2 * 1024 * 1024;
inline constexpr std::size_t kMinHugeBytes = 32 * 1024 * 1024;
inline constexpr std::size_t kWrittenPart = 8;
inline constexpr std::size_t kBlockLooks = 4;
// When so many bytes, and this fraction of what is in use, as a shift, are returned in shorter
// pieces than huge pages, the heap does without. None of this if the user decides.
inline constexpr std::size_t kMinPieceBytes = 4 * 1024 * 1024;
inline constexpr std::size_t kPieceShift = 3;
// Above the soft limit, what the upper tiers hold is asked for again after growth by this part.
inline constexpr std::size_t kPressurePart = 64;
// After the OS refused a decommit, this many releases go by before it is asked again: a refusal is
// likely to be followed by another, and costs as much as a call that does something.
inline constexpr std::uint32_t kDecommitPause = 64;
// Lines of memory that lie at the same place in their pages share one set of the processor's first
// cache, which holds eight or so. If all large blocks began with a page, a program that goes along
// many of them at once would have none of their lines there. So a block begins at one of the lines
// below, as long as its last page has room. One of at least so many bytes is given this room.
inline constexpr std::size_t kColorBytes = 64;
inline constexpr std::size_t kColors = 64;
inline constexpr std::size_t kMaxColor = (kColors - 1) * kColorBytes;
inline constexpr std::size_t kMinColoredBytes = 256 * 1024;
// A block of at least this many bytes that outgrows its place has its pages moved by mremap; a
// smaller one is copied, which is cheaper than the system call and the faults (docs/decisions.md).
inline constexpr std::size_t kMoveBytes = 512 * 1024;
// How often an allocation that the OS refuses to serve looks again for what this thread or another
// has returned meanwhile. A bound, since others may take it first each time.
inline constexpr std::size_t kMaxTries = 16;
// Runs and blocks of moved pages, at a time: each may be a kernel mapping of its own, of which a
// process has 65,530 by default.
inline constexpr std::size_t kMaxMoved = 16384;
// Moves whose target was lost, until no more are tried.
inline constexpr std::size_t kMaxLost = 4;

// --- Region pools ------------------------------------------------------------------------------

// Largest block, in bytes, that is cut from a chunk. A larger one is worth an object of its own,
// which can be freed early.
inline constexpr std::size_t kMaxPoolSmall = 4096;
// Smallest first chunk of a pool; each new chunk is twice the last, up to the largest. That is a
// size that thread caches keep.
inline constexpr std::size_t kMinPoolChunkBytes = 1024;
inline constexpr std::size_t kMaxPoolChunkBytes = 64 * 1024;
// A reset keeps the first chunk and those that follow, as long as they have no more bytes than this
// together: an idle connection must not hold much.
inline constexpr std::size_t kPoolKeptBytes = 64 * 1024;
// A chunk that was too full for so many requests is passed over: what it has left is less than
// they commonly want.
inline constexpr std::uint32_t kPoolChunkFailures = 4;
// The reports have of each pool the most that it held in its last so many resets, or since.
inline constexpr std::uint32_t kPoolPeakResets = 16;

// --- Metadata ----------------------------------------------------------------------------------

inline constexpr std::size_t kMetadataChunkBytes = 128 * 1024;
// When a chunk has less left than this, the next one is asked for: more than what is described by
// one who holds the page heap's lock.
inline constexpr std::ptrdiff_t kLowMetadataBytes = 8 * 1024;

// --- Reports -----------------------------------------------------------------------------------

// Bytes of MINITC_STATS_FILE's value: more than any path that people write.
inline constexpr std::size_t kMaxStatsPath = 512;
// Milliseconds that the last line waits for another thread's, which takes one or two. For ever
// would be wrong: the other may be what a signal handler interrupted that now ends the program.
inline constexpr std::size_t kLastLineWaitMs = 100;

static_assert(kMaxSmall % kPageBytes == 0);
static_assert(kMaxCachedObjects >= kMaxBatch && kMaxBatch >= 1);
static_assert(kFirstCachedObjects >= kMinCachedObjects && kMostFirstBytes <= kMaxBatchBytes);
static_assert(kMinChunkPages <= kMaxChunkPages && kMinChunkPages * kPageBytes >= kMaxSmall);
static_assert(kMaxPoolSmall % kMinAlign == 0 && kMaxPoolSmall < kMaxPoolChunkBytes);
static_assert(kMinPoolChunkBytes <= kMaxPoolChunkBytes && kMaxPoolChunkBytes <= kMaxSmall);
static_assert(sizeof(void*) == 8, "the page map and the size of requests assume 64 bits");

}  // namespace minitc
