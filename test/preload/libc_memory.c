// libc's own functions that allocate: what they give the program frees or resizes, and what libc
// gives back itself it has from the same allocator.
#include "check.h"

#include <dirent.h>
#include <ftw.h>
#include <glob.h>
#include <iconv.h>
#include <locale.h>
#include <netdb.h>
#include <regex.h>
#include <search.h>
#include <wchar.h>

// A block of libc's with `bytes` in it: all of it can be used, resized and freed.
static void take(void* block, size_t bytes) {
  CHECK(block != NULL && malloc_usable_size(block) >= bytes);
  memset(block, 0x55, malloc_usable_size(block));
  block = realloc(block, bytes + 5000);
  CHECK(block != NULL && *(char*)block == 0x55);
  free(block);
}

static void strings(void) {
  char text[3000];
  memset(text, 'x', sizeof text - 1);
  text[sizeof text - 1] = '\0';
  take(strdup(text), sizeof text);
  take(strndup(text, 100), 101);
  take(wcsdup(L"wide"), 5 * sizeof(wchar_t));
  char* printed = NULL;
  CHECK(asprintf(&printed, "%s%d", text, 7) == (int)sizeof text);
  take(printed, sizeof text + 1);
}

static void lines(void) {
  FILE* stream = fopen("/proc/self/maps", "r");
  CHECK(stream != NULL);
  char* line = NULL;
  size_t room = 0;
  while (getline(&line, &room, stream) > 0) CHECK(malloc_usable_size(line) >= room);
  take(line, room);
  line = NULL;
  room = 0;
  rewind(stream);
  CHECK(getdelim(&line, &room, '\0', stream) > 500);  // all of it, in many steps
  take(line, room);
  fclose(stream);
}

static void memory_streams(void) {
  char* buffer = NULL;
  size_t bytes = 0;
  FILE* stream = open_memstream(&buffer, &bytes);
  CHECK(stream != NULL);
  for (int i = 0; i < 20000; i++) fputs("0123456789", stream);
  CHECK(fclose(stream) == 0 && bytes == 200000);
  take(buffer, bytes);
  wchar_t* wide = NULL;
  stream = open_wmemstream(&wide, &bytes);
  CHECK(stream != NULL && fputws(L"wide", stream) >= 0 && fclose(stream) == 0 && bytes == 4);
  take(wide, 5 * sizeof(wchar_t));
}

static int visit(const char* path, const struct stat* status, int kind, struct FTW* where) {
  (void)status;
  (void)kind;
  return path[0] == '\0' || where->level > 5;
}

static void paths(void) {
  take(realpath("/proc/self/cwd/..", NULL), 2);
  take(getcwd(NULL, 0), 2);
  take(get_current_dir_name(), 2);
  DIR* directory = opendir("/");
  CHECK(directory != NULL && readdir(directory) != NULL && closedir(directory) == 0);
  struct dirent** entries = NULL;
  int count = scandir("/", &entries, NULL, alphasort);
  CHECK(count > 2);
  for (int i = 0; i < count; i++) take(entries[i], 20);
  take(entries, (size_t)count * sizeof *entries);
  glob_t found;
  CHECK(glob("/*", 0, NULL, &found) == 0 && found.gl_pathc > 0);
  globfree(&found);
  // What is walked must not change meanwhile: musl takes a file that is gone for an error.
  CHECK(nftw("/proc/sys/kernel", visit, 5, FTW_PHYS) == 0);
}

static int compare(const void* a, const void* b) { return strcmp(a, b); }

static void tables(void) {
  void* root = NULL;
  for (int i = 0; i < 200; i++) {
    char* key = NULL;
    CHECK(asprintf(&key, "key %d", i) > 0);
    CHECK(tsearch(key, &root, compare) != NULL);
  }
  tdestroy(root, free);
  CHECK(hcreate(50) != 0);
  ENTRY entry = {strdup("key"), NULL};
  CHECK(hsearch(entry, ENTER) != NULL);
  hdestroy();
  take(entry.key, 4);
}

static void names_and_patterns(void) {
  regex_t pattern;
  CHECK(regcomp(&pattern, "^(a|b)*([[:alpha:]]+)\\1$", REG_EXTENDED) == 0);
  CHECK(regexec(&pattern, "aaaaaaaaab", 0, NULL, 0) == REG_NOMATCH ||
        regexec(&pattern, "abcb", 0, NULL, 0) == 0);
  regfree(&pattern);
  struct addrinfo hints = {.ai_flags = AI_NUMERICHOST};
  struct addrinfo* addresses = NULL;
  CHECK(getaddrinfo("127.0.0.1", "80", &hints, &addresses) == 0);
  freeaddrinfo(addresses);
  iconv_t conversion = iconv_open("UCS-4", "UTF-8");
  CHECK(conversion != (iconv_t)-1 && iconv_close(conversion) == 0);
  locale_t locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
  CHECK(locale != (locale_t)0);
  freelocale(locale);
  for (int i = 0; i < 300; i++) {
    char name[20];
    snprintf(name, sizeof name, "NAME%d", i % 30);
    CHECK(i % 3 == 2 ? unsetenv(name) == 0 : setenv(name, "a value of some length", 1) == 0);
  }
}

static void loader(void) {
  CHECK(dlopen("/nowhere/at/all.so", RTLD_NOW) == NULL && dlerror() != NULL);
  void* self = dlopen(NULL, RTLD_NOW);
  CHECK(self != NULL && dlsym(self, "no such name") == NULL && dlerror() != NULL);
  CHECK(dlsym(self, "malloc") != NULL && dlclose(self) == 0);
}

static void* all_in_a_thread(void* unused) {
  strings();
  lines();
  memory_streams();
  paths();
  loader();
  return unused;
}

static void in_threads(void) {
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, all_in_a_thread, NULL) == 0);
  for (int i = 0; i < 4; i++) CHECK(pthread_join(threads[i], NULL) == 0);
}

int main(int argc, char** argv) {
  static const TestCase cases[] = {
      {"strings", strings}, {"lines", lines},           {"memory_streams", memory_streams},
      {"paths", paths},     {"tables", tables},         {"names_and_patterns", names_and_patterns},
      {"loader", loader},   {"in_threads", in_threads}, {NULL, NULL},
  };
  return run_case(argc, argv, cases);
}
