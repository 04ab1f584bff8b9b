// Memory over a server's days, in seconds: what goes back to the system and when, what a loop
// costs, how many mappings there are, and forks of a large process.
#include "check.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

enum { kKiB = 1 << 10, kMiB = 1 << 20, kPage = 4096, kBoundKib = 32 << 10 };

static void* (*volatile hidden_malloc)(size_t) = malloc;

static unsigned long state = 12345;

static size_t random_below(size_t bound) {
  state = state * 6364136223846793005ul + 1442695040888963407ul;
  return (state >> 33) % bound;
}

static long peak_kib(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

static long faults(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

// Lines of a file under /proc that contain `text`, without an allocation.
static int count_lines(const char* path, const char* text) {
  static char buffer[1 << 16];
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  CHECK(fd >= 0);
  int count = 0;
  size_t kept = 0;
  for (;;) {
    ssize_t got = read(fd, buffer + kept, sizeof buffer - 1 - kept);
    if (got <= 0) break;
    buffer[kept + (size_t)got] = '\0';
    char* line = buffer;
    for (char* end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
      *end = '\0';
      count += strstr(line, text) != NULL;
    }
    kept = strlen(line);
    memmove(buffer, line, kept);
  }
  close(fd);
  return count;
}

static int mappings(void) { return count_lines("/proc/self/maps", ""); }

// --- What goes back ------------------------------------------------------------------------------

// Not from the heap, whose size is looked at.
static void** array_of(size_t count) {
  void** array = mmap(NULL, count * sizeof *array, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  CHECK(array != MAP_FAILED);
  return array;
}

enum { kSmall = 5000000, kSmallBytes = 120 };

static void** small;
static size_t keep_one_of;

static void* free_small(void* unused) {
  for (size_t i = 0; i < kSmall; i++) {
    if (keep_one_of == 0 || i % keep_one_of != 0) free(small[i]);
  }
  return unused;
}

// The bounds are those of the documents: what is free above 32 MiB or an eighth of the heap is with
// the system by the time that the last free returns; an object in use keeps its span of 8 KiB.
static void check_small_objects(int in_other_thread, size_t keep, long most_left_kib) {
  pthread_t thread;
  small = array_of(kSmall);
  keep_one_of = keep;
  churn(1);
  long before = resident_kib();
  for (size_t i = 0; i < kSmall; i++) {
    small[i] = hidden_malloc(kSmallBytes);
    memset(small[i], 1, kSmallBytes);
  }
  long peak = resident_kib() - before;
  CHECK(peak > (long)kSmall * kSmallBytes / kKiB);
  if (in_other_thread) {
    CHECK(pthread_create(&thread, NULL, free_small, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
  } else {
    free_small(NULL);
  }
  long left = resident_kib() - before;
  if (left > most_left_kib) fprintf(stderr, "%ld KiB of %ld KiB are left\n", left, peak);
  CHECK(left <= most_left_kib && (keep != 0 || left <= peak / 10));
}

static void small_objects_go_back(void) { check_small_objects(0, 0, kBoundKib + 8 * kKiB); }

static void small_objects_go_back_from_another_thread(void) {
  check_small_objects(1, 0, kBoundKib + 8 * kKiB);
}

static void one_object_of_1000_stays(void) {
  check_small_objects(0, 1000, kBoundKib + 8 * kKiB + kSmall / 1000 * 8);
}

static void go_to_background(void) {
  pid_t child = fork_checked();
  if (child != 0) _exit(child_succeeded(child) ? 0 : 1);
  CHECK(setsid() > 0);
  child = fork_checked();
  if (child != 0) _exit(child_succeeded(child) ? 0 : 1);
}

// As daemon() does it, but that the parents wait for the outcome.
static void daemon_gives_memory_back(void) {
  free(hidden_malloc(100 * kMiB));
  go_to_background();
  long before = resident_kib();
  void* object = memset(hidden_malloc(200 * kMiB), 1, 200 * kMiB);
  CHECK(resident_kib() > before + 190 * kKiB);
  free(object);
  CHECK(resident_kib() < before + kBoundKib + 4 * kKiB);
}

// --- What a loop costs ---------------------------------------------------------------------------

// Allocates `bytes` in pieces, touches every page, frees all.
static void one_round(size_t bytes, size_t piece) {
  static char* pieces[1024];
  size_t count = bytes / piece;
  CHECK(count <= sizeof pieces / sizeof pieces[0]);
  for (size_t i = 0; i < count; i++) {
    pieces[i] = hidden_malloc(piece);
    for (size_t offset = 0; offset < piece; offset += kPage) pieces[i][offset] = 1;
  }
  for (size_t i = 0; i < count; i++) free(pieces[i]);
}

static void check_loop(size_t bytes, size_t piece, size_t most_bytes_per_round) {
  enum { kRounds = 30 };
  for (int i = 0; i < 3; i++) one_round(bytes, piece);
  long before = faults();
  for (int i = 0; i < kRounds; i++) one_round(bytes, piece);
  long pages = (faults() - before) / kRounds;
  if ((size_t)pages * kPage > most_bytes_per_round) fprintf(stderr, "%ld pages a round\n", pages);
  CHECK((size_t)pages * kPage <= most_bytes_per_round);
  CHECK(resident_kib() < (long)(bytes + bytes / 2) / kKiB + 16 * kKiB);
}

// What fits the bound is not given back and faulted in again.
static void pieces_within_the_bound(void) { check_loop(24 * kMiB, 64 * kKiB, 16 * kPage); }

// Beyond it, what is too much is.
static void pieces_beyond_the_bound(void) { check_loop(64 * kMiB, 64 * kKiB, 40 * kMiB); }

static void large_temporaries(void) {
  for (size_t mib = 1; mib <= 8; mib *= 2) check_loop(mib * kMiB, mib * kMiB, 2 * kPage);
}

static void realloc_eight_bytes_at_a_time(void) {
  enum { kBytes = 100 * kMiB };
  unsigned char* object = NULL;
  for (size_t size = 8; size <= kBytes; size += 8) {
    object = realloc(object, size);
    CHECK(object != NULL);
    object[size - 8] = (unsigned char)(size >> 12);
  }
  for (size_t size = 8; size <= kBytes; size += 8) {
    CHECK(object[size - 8] == (unsigned char)(size >> 12));
  }
  // At no time were there two copies of it.
  CHECK(peak_kib() < kBytes / kKiB + 24 * kKiB);
  free(object);
}

static void realloc_doubles_to_a_gib(void) {
  const size_t touched = 128 * kMiB;
  char* object = NULL;
  void* obstacles[12];
  int count = 0;
  size_t done = 0;
  for (size_t size = kMiB; size <= 1024ul * kMiB; size *= 2) {
    object = realloc(object, size);
    CHECK(object != NULL);
    for (; done < size && done < touched; done += kPage)
      object[done] = (char)(done / kPage % 127 + 1);
    obstacles[count++] = hidden_malloc(kMiB);  // so that it cannot grow where it is
  }
  for (size_t i = 0; i < touched; i += kPage) CHECK(object[i] == (char)(i / kPage % 127 + 1));
  CHECK(peak_kib() < (long)(touched / kKiB) + 24 * kKiB);
  free(object);
  while (count > 0) free(obstacles[--count]);
}

// --- Huge pages ----------------------------------------------------------------------------------

// A file under /proc, until the next call; without an allocation, which would change what it says.
static char* text_of(const char* path) {
  static char text[1 << 20];
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  CHECK(fd >= 0);
  size_t length = 0;
  for (ssize_t got; (got = read(fd, text + length, sizeof text - 1 - length)) > 0;) {
    length += (size_t)got;
  }
  close(fd);
  text[length] = '\0';
  return text;
}

// Lets the kernel use huge pages for all that is mapped and anonymous, as it does by itself where
// /sys/kernel/mm/transparent_hugepage/enabled says always.
static void advise_huge_pages(void) {
  for (char* line = text_of("/proc/self/maps"); *line != '\0'; line = strchr(line, '\n') + 1) {
    unsigned long start;
    unsigned long end;
    unsigned long inode;
    CHECK(sscanf(line, "%lx-%lx %*s %*s %*s %lu", &start, &end, &inode) == 3);
    if (inode != 0 || end - start < 2 * kMiB || strstr(line, " rw-p ") == NULL) continue;
    (void)madvise((void*)start, end - start, MADV_HUGEPAGE);
  }
}

// Ranges that are given back are long, so that khugepaged can bring back no more than what lies at
// their ends. It holds without huge pages too, where the kernel has none to give.
static void huge_pages_go_back(void) {
  enum { kBlocks = 1000, kBlockBytes = 256 * kKiB };
  static char* blocks[kBlocks];
  for (int i = 0; i < kBlocks; i++) blocks[i] = hidden_malloc(kBlockBytes);
  advise_huge_pages();
  long before = resident_kib();
  for (int i = 0; i < kBlocks; i++) memset(blocks[i], 1, kBlockBytes);
  long peak = resident_kib() - before;
  CHECK(peak > 240l * kKiB);
  const long ends = 8 * kKiB;
  for (int i = 0; i < kBlocks / 2; i++) free(blocks[i]);
  long half = resident_kib() - before;
  CHECK(half < peak / 2 + kBoundKib + ends);
  usleep(300000);
  CHECK(resident_kib() - before <= half + ends);
  for (int i = kBlocks / 2; i < kBlocks; i++) free(blocks[i]);
  CHECK(resident_kib() - before < kBoundKib + ends);
}

// Whether the kernel may make no huge page of what is mapped at `ptr`: "nh" among its flags.
static int has_no_huge_pages(const void* ptr) {
  int is_here = 0;
  for (char* line = strtok(text_of("/proc/self/smaps"), "\n"); line != NULL;
       line = strtok(NULL, "\n")) {
    unsigned long start;
    unsigned long end;
    if (sscanf(line, "%lx-%lx ", &start, &end) == 2) {
      is_here = start <= (uintptr_t)ptr && (uintptr_t)ptr < end;
    } else if (is_here && strncmp(line, "VmFlags:", 8) == 0) {
      return strstr(line, " nh") != NULL;
    }
  }
  CHECK(!"no such mapping");
  return 0;
}

// What has gone back between objects would come back with the next huge page that khugepaged makes.
static void huge_pages_stay_away(void) {
  enum { kObjects = 4096, kObjectBytes = 8 * kKiB };
  static char* objects[kObjects];
  void* page = mmap(NULL, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(page != MAP_FAILED);
  if (madvise(page, kPage, MADV_NOHUGEPAGE) != 0 || !has_no_huge_pages(page)) {
    skip("the kernel has no huge pages");
  }
  munmap(page, kPage);
  for (int i = 0; i < kObjects; i++) {
    objects[i] = hidden_malloc(kObjectBytes);
    memset(objects[i], 1, kObjectBytes);
  }
  CHECK(!has_no_huge_pages(objects[0]) && !has_no_huge_pages(objects[kObjects - 1]));
  long full = resident_kib();
  for (int i = 0; i < kObjects; i++) {
    if (i % 4 != 0) free(objects[i]);
  }
  for (int tick = 0; tick < 60; tick++) {
    usleep(20000);
    for (int i = 0; i < 50; i++) free(hidden_malloc(200 * kKiB));
  }
  CHECK(resident_kib() < full - kObjects * kObjectBytes / 2 / kKiB);
  for (int i = 0; i < kObjects; i += 4) CHECK(i % 512 != 0 || has_no_huge_pages(objects[i]));
}

// --- Mappings ------------------------------------------------------------------------------------

// Of 32 Ki spans of 8 KiB a random half goes back to the system, each at once: the test sets the
// bound to nothing.
static void mappings_stay_few(void) {
  enum { kObjects = 32768 * 8, kObjectBytes = 1024, kSpanShift = 13 };
  void** objects = array_of(kObjects);
  for (int i = 0; i < kObjects; i++) {
    objects[i] = hidden_malloc(kObjectBytes);
    *(int*)objects[i] = i;
  }
  long full = resident_kib();
  for (int i = 0; i < kObjects; i++) {
    size_t span = (uintptr_t)objects[i] >> kSpanShift;
    if ((span * 2654435761u >> 16) % 2 == 0) continue;
    free(objects[i]);
    objects[i] = NULL;
  }
  CHECK(resident_kib() < full - 100 * kKiB);
  CHECK(mappings() < 2000);
  for (int i = 0; i < kObjects; i++) {
    if (objects[i] == NULL) continue;
    CHECK(*(int*)objects[i] == i);
    free(objects[i]);
  }
  CHECK(mappings() < 2000);
}

// A block whose pages were moved may be a mapping of its own, for as long as it has its memory. Its
// places join again, but the kernel joins no two that were touched while they were apart: the debug
// build, which reads both ends of what is to be zero, has 160 left in any round.
static void moved_blocks(void) {
  enum { kBlocks = 500, kRounds = 4 };
  static char* blocks[kBlocks];
  for (int round = 0; round < kRounds; round++) {
    for (int i = 0; i < kBlocks; i++) *(blocks[i] = hidden_malloc(600 * kKiB)) = (char)i;
    for (size_t kib = 900; kib < 3000; kib *= 2) {
      for (size_t i = 0; i < kBlocks; i++) {
        blocks[i] = realloc(blocks[i], kib * kKiB + i % 7 * 20000);
        CHECK(blocks[i] != NULL && *blocks[i] == (char)i);
      }
    }
    CHECK(mappings() < kBlocks + 200);
    for (int i = 0; i < kBlocks; i++) free(blocks[i]);
    CHECK(mappings() < kBlocks + 200);
    malloc_trim(0);
    CHECK(mappings() < kBlocks / 2);
  }
}

// Whether the system's setting for huge pages is this.
static int huge_pages_are(const char* setting) {
  const char* path = "/sys/kernel/mm/transparent_hugepage/enabled";
  return access(path, R_OK) == 0 && count_lines(path, setting) != 0;
}

// Stacks, say, of which most are not deep, in a program that has written to some blocks from end to
// end: each would be resident with all that lies in the same huge page, 600 MiB.
static void use_blocks_in_part(int small, long most_kib) {
  enum { kMostSmall = 64 * 1024, kWritten = 8, kBlocks = 2000, kBlockBytes = 300 * kKiB };
  static char* objects[kMostSmall];
  static char* blocks[kBlocks];
  if (huge_pages_are("[always]")) skip("the kernel makes huge pages unasked");
  for (int i = 0; i < small; i++) objects[i] = memset(hidden_malloc(kKiB), 1, kKiB);
  for (int i = 0; i < kWritten; i++) blocks[i] = memset(hidden_malloc(kMiB), 1, kMiB);
  for (int i = 0; i < kWritten; i++) free(blocks[i]);
  usleep(50000);
  churn(2);
  long before = resident_kib();
  for (int round = 0; round < 3; round++) {
    for (int i = 0; i < kBlocks; i++) *(blocks[i] = hidden_malloc(kBlockBytes)) = (char)i;
    CHECK(resident_kib() - before < most_kib);
    for (int i = 0; i < kBlocks; i++) free(blocks[i]);
    usleep(50000);
    churn(2);
  }
  for (int i = 0; i < small; i++) free(objects[i]);
}

static void blocks_used_in_part(void) { use_blocks_in_part(0, 100 * kKiB); }
static void blocks_used_in_part_beside_small_objects(void) {
  use_blocks_in_part(64 * 1024, 20 * kKiB);
}

// Nobody reads what a block holds when it is freed: the program may have protected it, or kept it
// from its child.
static void unreadable_blocks_are_freed(void) {
  const size_t size = 4 * kMiB;
  char* from_child = memalign(kPage, size);
  CHECK(madvise(memset(from_child, 1, size), size, MADV_DONTFORK) == 0);
  pid_t child = fork();
  if (child == 0) {
    free(from_child);
    _exit(0);
  }
  int status;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  char* block = memalign(kPage, size);
  CHECK(mprotect(memset(block, 1, size), size, PROT_NONE) == 0);
  free(block);
}

// What is free in the wrong places goes back and comes back by huge pages, in a heap that is large.
static void large_blocks_come_in_huge_pages(void) {
  enum { kBlocks = 64, kRounds = 50 };
  static char* blocks[kBlocks];
  if (!huge_pages_are("[always]") && !huge_pages_are("[madvise]")) {
    skip("the kernel has no huge pages");
  }
  enum { kPopulateRead = 22 };  // MADV_POPULATE_READ, since Linux 5.14
  if (madvise(memalign(kPage, kPage), kPage, kPopulateRead) != 0) {
    skip("the kernel does not tell what can be read");
  }
  churn(2);
  long before = resident_kib();
  for (int i = 0; i < kBlocks; i++) blocks[i] = memset(hidden_malloc(kMiB), i + 1, kMiB);
  for (int i = 0; i < kBlocks; i += 2) free(blocks[i]);
  long first = faults();
  long touched = 0;
  for (int round = 0; round < kRounds; round++) {
    const size_t size = (size_t)(round % 7 + 2) * 3 * kMiB + 4096;
    char* block = hidden_malloc(size);
    for (size_t at = 0; at < size; at += kPage) block[at] = (char)round;
    touched += (long)(size / kPage);
    free(block);
  }
  long pages = faults() - first;
  if (pages >= touched / 10) fprintf(stderr, "%ld page faults, %ld pages\n", pages, touched);
  CHECK(pages < touched / 10);
  CHECK(resident_kib() - before < (kBlocks + 20) * kKiB);
  for (int i = 1; i < kBlocks; i += 2) {
    for (size_t at = 0; at < kMiB; at += kPage) CHECK(blocks[i][at] == i + 1);
    free(blocks[i]);
  }
  malloc_trim(0);
  CHECK(mappings() < 100);
}

static char* resize_to(char* object, size_t* size, size_t wanted) {
  size_t common = *size < wanted ? *size : wanted;
  char* moved = realloc(object, wanted);
  if (moved == NULL) {
    CHECK(errno == ENOMEM);
    CHECK(is_filled(object, *size < 100 ? *size : 100, 5));
    return object;
  }
  CHECK(is_filled(moved, common < 100 ? common : 100, 5));
  fill(moved, wanted < 100 ? wanted : 100, 5);
  *size = wanted;
  return moved;
}

// The process has as many mappings as the kernel allows. What would need another one is refused:
// new chunks, moves of pages. Null and ENOMEM then, or another way; and nothing is lost.
static void at_the_mapping_limit(void) {
  enum { kMost = 200000, kObjects = 64 };
  char* objects[kObjects] = {NULL};
  size_t sizes[kObjects] = {0};
  char* pages = mmap(NULL, 2ul * kMost * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(pages != MAP_FAILED);
  churn(2);
  free(hidden_malloc(16 * kMiB));  // room to move to, for a while
  long made = 0;
  while (made < kMost && mprotect(pages + 2 * made * kPage, kPage, PROT_READ) == 0) made++;
  if (made == kMost) skip("more than 200,000 mappings are allowed");
  CHECK(errno == ENOMEM && made > 1000);
  // The last ones: what is left may be one or two.
  while (mmap(NULL, kPage, made++ % 2 == 0 ? PROT_READ : PROT_NONE, MAP_SHARED | MAP_ANONYMOUS, -1,
              0) != MAP_FAILED) {
  }
  long refused = 0;
  for (int round = 0; round < 20000; round++) {
    size_t i = random_below(kObjects);
    size_t size = random_below(round % 8 == 0 ? 4 * kMiB : 5000) + 1;
    if (round % 3 == 0 && objects[i] != NULL) {
      objects[i] = resize_to(objects[i], &sizes[i], size);
      continue;
    }
    if (objects[i] != NULL) CHECK(is_filled(objects[i], sizes[i] < 100 ? sizes[i] : 100, 5));
    free(objects[i]);
    errno = 0;
    objects[i] = round % 2 == 0 ? malloc(size) : calloc(1, size);
    sizes[i] = size;
    if (objects[i] == NULL) {
      CHECK(errno == ENOMEM);
      refused++;
      continue;
    }
    if (round % 2 != 0) CHECK(is_zero(objects[i], size));
    fill(objects[i], size < 100 ? size : 100, 5);
    if (round % 1000 == 0) malloc_trim(0);
  }
  for (int i = 0; i < kObjects; i++) free(objects[i]);
  CHECK(munmap(pages, 2ul * kMost * kPage) == 0);
  for (int i = 0; i < 3; i++) free(memset(hidden_malloc(50 * kMiB), 1, 50 * kMiB));
  churn(10);
  CHECK(refused > 0 && refused < 10000);
}

// --- Large processes -----------------------------------------------------------------------------

// Twice the machine's memory in freed blocks of which little was ever touched. The kernel's
// accounting, by which it refuses forks, must not know of it.
static void fork_of_a_large_process(void) {
  enum { kBlocks = 256 };
  static char* blocks[kBlocks];
  const size_t memory = (size_t)sysconf(_SC_PHYS_PAGES) * kPage;
  const size_t size = memory / kBlocks * 2;
  if (count_lines("/proc/sys/vm/overcommit_memory", "2") != 0) skip("all memory is accounted here");
  for (int i = 0; i < kBlocks; i++) {
    blocks[i] = hidden_malloc(size);
    CHECK(blocks[i] != NULL);
    blocks[i][0] = blocks[i][size / 2] = (char)i;
  }
  CHECK(count_lines("/proc/self/smaps", " ac ") <= 40);
  for (int i = 0; i < kBlocks; i += 2) free(blocks[i]);
  pid_t child = fork_checked();
  if (child == 0) {
    for (int i = 1; i < kBlocks; i += 2) CHECK(blocks[i][size / 2] == (char)i);
    churn(5);
    _exit(0);
  }
  CHECK(child_succeeded(child));
  for (int i = 1; i < kBlocks; i += 2) free(blocks[i]);
}

// Programs count their threads, or do what only a process of one thread may.
static void no_other_thread(void) {
  churn(300);
  malloc_trim(0);
  CHECK(count_lines("/proc/self/status", "Threads:\t1") == 1);
  errno = 0;
  // EPERM is a container's: it stands for more than one thread no more than success does.
  CHECK(unshare(CLONE_NEWUSER) == 0 || errno != EINVAL);
}

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"small_objects_go_back", small_objects_go_back},
      {"small_objects_go_back_from_another_thread", small_objects_go_back_from_another_thread},
      {"one_object_of_1000_stays", one_object_of_1000_stays},
      {"daemon_gives_memory_back", daemon_gives_memory_back},
      {"pieces_within_the_bound", pieces_within_the_bound},
      {"pieces_beyond_the_bound", pieces_beyond_the_bound},
      {"large_temporaries", large_temporaries},
      {"realloc_eight_bytes_at_a_time", realloc_eight_bytes_at_a_time},
      {"realloc_doubles_to_a_gib", realloc_doubles_to_a_gib},
      {"huge_pages_go_back", huge_pages_go_back},
      {"huge_pages_stay_away", huge_pages_stay_away},
      {"mappings_stay_few", mappings_stay_few},
      {"moved_blocks", moved_blocks},
      {"blocks_used_in_part", blocks_used_in_part},
      {"blocks_used_in_part_beside_small_objects", blocks_used_in_part_beside_small_objects},
      {"unreadable_blocks_are_freed", unreadable_blocks_are_freed},
      {"large_blocks_come_in_huge_pages", large_blocks_come_in_huge_pages},
      {"at_the_mapping_limit", at_the_mapping_limit},
      {"fork_of_a_large_process", fork_of_a_large_process},
      {"no_other_thread", no_other_thread},
      {NULL, NULL},
  };
  return run_case(argc, argv, cases);
}
